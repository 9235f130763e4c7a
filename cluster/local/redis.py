"""A Redis server: the machine's, or Debian's, unpacked into the cache without being installed."""

import os
import re
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from cluster import debian
from cluster.cache import CACHE, exclusive
from cluster.errors import CommandError
from cluster.shell import run
from cluster.steps import step

OLDEST: Final = (6, 2)
"""Dapr certifies its components with Redis 6 and 7; 6.2 is what the image of 6 has in it."""
PACKAGES: Final = ("redis-server", "redis-tools")
"""The first has the program's name, the second the program."""
MEND: Final = "install Redis 6.2 or later (macOS: brew install redis; Fedora: dnf install redis; Debian: redis-server)"


class Server(NamedTuple):
    """How a Redis server is started."""

    command: tuple[str, ...]
    env: dict[str, str]
    version: str


def problem() -> str | None:
    """Why there can be no Redis server, and the mend; ``None`` when there can."""
    if program := shutil.which("redis-server"):
        version = _version(Path(program), {})
        if _numbers(version) < OLDEST:
            return f"{program} is {version or 'of an unknown version'}, which is too old: {MEND}"
        return None
    return None if debian.has_apt() else f"redis-server is not installed, or not in PATH: {MEND}"


def plan() -> list[str]:
    """What has to be fetched first, one line each."""
    if shutil.which("redis-server") or _folder().exists():
        return []
    return [f"unpack Debian packages into {CACHE}: {', '.join(PACKAGES)} and what they need (a few seconds)"]


def server() -> Server:
    """A Redis server; fetched when the machine has none.

    Raises:
        CommandError: none is to be had.
    """
    if program := shutil.which("redis-server"):
        return Server((program,), {}, _version(Path(program), {}))
    folder = _folder()
    if not folder.exists():
        with exclusive(), step(f"unpacked: {', '.join(PACKAGES)}"):
            _unpack()
    program = str(folder / "usr" / "bin" / "redis-server")
    libraries = sorted({str(library.parent) for library in folder.rglob("*.so.*")})
    env = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {}
    version = _version(Path(program), env)
    if _numbers(version) < OLDEST:
        raise CommandError(f"this system's packages have Redis {version or '?'}, which is too old: {MEND}")
    return Server((program,), env, version)


def _unpack() -> None:
    try:
        debian.unpack(PACKAGES, with_what_they_need=True)
    except CommandError as error:
        raise CommandError(f"no redis-server in PATH, and Debian's cannot be fetched ({error}): {MEND}") from error


def _folder() -> Path:
    return debian.unpacked(PACKAGES)


def _version(program: Path, env: dict[str, str]) -> str:
    found = re.search(r"\bv=(\d+\.\d+\S*)", run([program, "--version"], env={**os.environ, **env}))
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
