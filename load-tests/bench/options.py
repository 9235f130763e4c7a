"""What the commands of this package have in common: options, how errors and signals end them, where results go."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from cluster.errors import CommandError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the other commands do."""

    def error(self, message: str) -> NoReturn:
        """Raises :class:`CommandError`."""
        raise CommandError(message, exit_code=2)


def run(command: Callable[[], int]) -> int:
    """The exit code of ``command``; what it started is ended also when a signal comes."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    try:
        return command()
    except CommandError as error:
        if error.said:
            print(error.said, file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; what was started is ended", file=sys.stderr)
        return 130


def count(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least:,} to {most:,}")
        return int(text)

    return count


def folder(path: Path) -> Path:
    """The folder, made if there is none.

    Raises:
        CommandError: it can't be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{path}: cannot be written ({error.strerror}): name another with --to", exit_code=2
        ) from error
    return path


def _on_signal(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
