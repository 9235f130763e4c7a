"""Runs the tools that this project calls: helm, kubectl, compilers, image builders."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cluster.errors import CommandError

SHOWN_LINES: Final = 15


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Runs ``command`` (in the environment ``env`` and the folder ``cwd``, if given); its standard output.

    Raises:
        CommandError: it could not be run, failed, or took too long; with the end of what it printed.
    """
    arguments = [str(part) for part in command]
    name = " ".join([Path(arguments[0]).name, *arguments[1:2]])
    try:
        done = subprocess.run(
            arguments,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{arguments[0]} is not installed, or not in PATH") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{name} was not done after {error.timeout:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise CommandError(f"{name} failed: {reason}", said="\n".join(said[-SHOWN_LINES:-1]))
    return done.stdout


def succeeds(*command: str | Path) -> bool:
    """Whether ``command`` succeeds."""
    try:
        run(command)
    except CommandError:
        return False
    return True
