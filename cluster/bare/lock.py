"""One command at a time works on the node and on the cache."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.bare.layout import CACHE
from cluster.steps import say


@contextmanager
def exclusive() -> Iterator[None]:
    """Waits until no other command is in such a block, and keeps others out while this one is."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "bare-node.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting until another command is done with the bare node")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
