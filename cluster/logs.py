"""Commands that say much: what they say goes to a file, and only its end is shown, when they fail."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.errors import CommandError

SHOWN_LINES: Final = 20


def run_logged(command: Sequence[str | Path], log: Path, *, env: Mapping[str, str] | None = None) -> None:
    """Runs ``command`` and writes all it says to ``log``.

    Raises:
        CommandError: it could not be run or failed. The end of the log has been shown by then.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                [str(part) for part in command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except FileNotFoundError as error:
            raise CommandError(f"{command[0]} is not installed, or not in PATH") from error
    if done.returncode != 0:
        show_end(log)
        raise CommandError(f"{log.stem} failed with exit code {done.returncode}; all that was said is in {log}")


def show_end(log: Path) -> None:
    """Prints the last lines of ``log`` to standard error."""
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:] if log.exists() else []
    print(f"--- the end of {log}:", *lines, "---", sep="\n", file=sys.stderr)
