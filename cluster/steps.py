"""Progress of a command, step by step with times.

A step is named by the state it brings about, so that its closing line is a statement: ``[ 12.3 s] etcd is up``. The
time is what has passed since the command began. On a terminal the step at hand is shown while it runs; elsewhere, and
with CI=true, there are only plain lines, and a slow step says now and then that it is still at work.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

STILL_WORKING_SECONDS = 30.0

_began = time.monotonic()
_console = Console(highlight=False, soft_wrap=True)


@contextmanager
def step(state: str) -> Iterator[None]:
    """Runs the block that brings about ``state`` ("etcd is up"), and prints a line when it is done or has failed."""
    try:
        with _shown(state):
            yield
    except BaseException:
        say(f"not reached: {state}")
        raise
    say(state)


def say(text: str) -> None:
    """Prints one line with the time."""
    _console.print(f"[{time.monotonic() - _began:6.1f} s] {text}", markup=False)


@contextmanager
def _shown(state: str) -> Iterator[None]:
    if _console.is_terminal and os.environ.get("CI") != "true":
        with _console.status(f"{state} ..."):
            yield
        return
    done = threading.Event()

    def remind() -> None:
        while not done.wait(STILL_WORKING_SECONDS):
            say(f"still working: {state}")

    reminder = threading.Thread(target=remind, daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
