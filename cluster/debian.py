"""Debian's packages: installed on the machine, or unpacked into the cache, where they change nothing."""

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cluster.cache import CACHE
from cluster.errors import CommandError
from cluster.logs import run_logged
from cluster.shell import run

_APT: Final = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120"]


def has_apt() -> bool:
    """Whether this machine has Debian's package tools."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def unpacked(packages: Sequence[str]) -> Path:
    """The folder that ``packages`` are unpacked into, as if it were the root folder; whether it exists or not."""
    release = "-".join(platform.freedesktop_os_release().get(key, "") for key in ("ID", "VERSION_ID"))
    return CACHE / "packages" / f"{release}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"


def unpack(packages: Sequence[str], *, with_what_they_need: bool = False) -> None:
    """Fetches ``packages`` and unpacks them; what they depend on and is not installed only if asked for.

    Raises:
        CommandError: one of them is not to be had.
    """
    folder = unpacked(packages)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archives = Path(scratch)
        root = archives / "root"
        root.mkdir()
        here = Path.cwd()
        os.chdir(archives)  # apt-get downloads to where it runs, and has no option for another place
        try:
            _apt("download", *packages, *(_needed(packages) if with_what_they_need else ()))
        finally:
            os.chdir(here)
        for archive in archives.glob("*.deb"):
            run(["dpkg-deb", "--extract", archive, root])
        root.rename(folder)


def install(packages: Sequence[str]) -> None:
    """Installs ``packages``; for root.

    Raises:
        CommandError: one of them is not to be had.
    """
    _apt("install", "--no-install-recommends", "--no-remove", *packages)


def _needed(packages: Sequence[str]) -> list[str]:
    """What would be installed with ``packages``, besides themselves."""
    lines = _apt("install", "--simulate", "--no-install-recommends", *packages).splitlines()
    return [name for name in (line.split()[1] for line in lines if line.startswith("Inst ")) if name not in packages]


def _apt(*arguments: str) -> str:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    log = CACHE / "log" / "apt.log"
    try:
        return run([*_APT, *arguments], env=environment)
    except CommandError:
        if os.geteuid() != 0:
            raise
        # On a fresh machine the package lists are missing, on an old one they name what is gone.
        run_logged([*_APT, "update"], log, env=environment)
        return run([*_APT, *arguments], env=environment)
