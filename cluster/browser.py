"""Chromium, which tests open pages with: the machine's, or Debian's."""

import os
import shutil
from pathlib import Path
from typing import Final

from cluster import debian
from cluster.cache import exclusive
from cluster.errors import CommandError
from cluster.steps import step

PROGRAMS: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
"""On macOS applications are not in PATH."""
PACKAGE: Final = "chromium"
MEND: Final = "install Chromium or Google Chrome (Debian: apt-get install chromium; macOS: brew install chromium)"


def chromium() -> Path:
    """Chromium or Google Chrome; on Debian, as root, installed when the machine has none.

    Raises:
        CommandError: none is to be had.
    """
    if found := _found():
        return found
    if os.geteuid() != 0 or not debian.has_apt():
        raise CommandError(f"no browser is installed, or none in PATH: {MEND}")
    with exclusive(), step(f"installed: {PACKAGE}"):
        try:
            debian.install([PACKAGE])
        except CommandError as error:
            raise CommandError(f"no browser in PATH, and Debian's cannot be installed ({error}): {MEND}") from error
    if found := _found():
        return found
    raise CommandError(f"this system's package {PACKAGE} has no program of that name: {MEND}")


def _found() -> Path | None:
    return next((Path(path) for program in PROGRAMS if (path := shutil.which(program))), None)
