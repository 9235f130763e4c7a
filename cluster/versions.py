"""The versions this project stands on: versions.env, which the Makefile reads as well."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
"""The checkout."""


def read(path: Path = ROOT / "versions.env") -> dict[str, str]:
    """Name -> version, for every ``NAME=version`` line."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


VERSIONS: Final = read()
