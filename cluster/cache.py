"""What outlives a cluster: programs, packages and images, by version and content. One command at a time works on it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cluster.steps import say

CACHE: Final = Path(
    os.environ.get("DACA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "daca"
).absolute()
"""Deleting the folder costs the time to make everything again."""


@contextmanager
def exclusive() -> Iterator[None]:
    """Waits until no other command is in such a block, and keeps others out while this one is."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting until another command is done with the cache and the bare node")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
