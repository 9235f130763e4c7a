"""What the commands of this package have in common: options, how errors and signals end them, where results go."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster import shell
from cluster.errors import CommandError, exit_code
from cluster.versions import ROOT


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        """Raises :class:`CommandError`."""
        raise CommandError(message, exit_code=2)


def run(command: Callable[[], int]) -> int:
    """The exit code of ``command``; what it started is ended also when a signal comes."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    return exit_code(command, interrupted="what was started is ended")


def count(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return count


def folder(chosen: Path | None, began: datetime, name: str) -> Path:
    """Where a run leaves its results, made if there is none: the chosen one, or one of its own.

    Raises:
        CommandError: it can't be written.
    """
    path = chosen or ROOT / "load-results" / f"{began:%Y%m%dT%H%M%SZ}-{name}"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{path}: cannot be written ({error.strerror}): name another with --to", exit_code=2
        ) from error
    return path


def about(target: str, began: datetime) -> dict[str, str | int | None]:
    """What is kept with the results of a run: when and of which revision it was, on how many cores, and the command
    that asks for it again (the ``target`` of the Makefile with the options of this process)."""
    given = shlex.join(sys.argv[1:])
    command = f"make {target}" + (f" BENCH_OPTIONS={shlex.quote(given)}" if given else "")
    return {"began": began.isoformat(), "command": command, "revision": _revision(), "cores": os.cpu_count()}


def _revision() -> str:
    try:
        return shell.run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
    except CommandError:  # a checkout without git
        return ""


def _on_signal(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
