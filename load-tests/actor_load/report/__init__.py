"""What a run leaves for people and for machines: one page, one picture, JSON, and JUnit.

Layers, lowest first: palette, series (numbers by time), pods, spread, marks, overview; compare; charts (how one looks)
and figures (which there are); page, picture, junit and terminal.
"""

import tempfile
from pathlib import Path

from pydantic_core import to_json

from actor_load.errors import LoadError
from actor_load.record import Record
from actor_load.report import junit


def write(record: Record, folder: Path) -> list[Path]:
    """Writes report.html, report.json, report.png and junit.xml to ``folder``, which is made where it is missing.

    Takes some seconds of one core. The JSON is written first: from it the others can be made again
    (``python -m actor_load.report``).

    Raises:
        LoadError: the folder cannot be written to.
    """
    # Altair takes half a second and 50 MB, which a worker would pay for nothing.
    from actor_load.report import page, picture  # noqa: PLC0415

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [
            _write(folder / "report.json", to_json(record)),
            _write(folder / "junit.xml", junit.render(record)),
            _write(folder / "report.html", page.render(record).encode()),
            _write(folder / "report.png", picture.draw(record)),
        ]
    except OSError as error:
        raise _unwritable(folder, error) from error


def check(folder: Path) -> None:
    """Raises :class:`LoadError` unless a report can be written to ``folder``: asked before a run, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> LoadError:
    return LoadError(f"{folder}: cannot be written ({error.strerror}): name another folder with --report")


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
