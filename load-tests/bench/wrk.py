"""The load generator: wrk, which takes little of the CPU that is to be measured, and what it prints."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from cluster import debian
from cluster.cache import exclusive
from cluster.errors import CommandError
from cluster.steps import step

PACKAGES: Final = ("wrk",)
MEND: Final = "install wrk (Debian: apt-get install wrk; macOS: brew install wrk)"
TIMEOUT_SECONDS: Final = 30
"""After which wrk takes a request for lost."""
ALLOWED: Final = (ip_network("127.0.0.0/8"), ip_network("198.18.0.0/15"))
"""Loopback, and the range reserved for benchmarks, in which the bare node lives."""

_UNITS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


@dataclass(frozen=True)
class Load:
    """What came of one step of load."""

    seconds: float
    statuses: Mapping[int, int]
    """Status -> how many answers had it."""
    lost: int
    """Connections that failed, and requests that took too long."""
    p50_ms: float
    p99_ms: float

    @classmethod
    def parse(cls, printed: str) -> Self:
        """What ``wrk --latency`` printed, with the lines of post.lua.

        Raises:
            CommandError: it is something else.
        """
        whole = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h)\b", printed)
        p50, p99 = (
            re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m|h)\b", printed, re.MULTILINE) for percent in (50, 99)
        )
        if not whole or not p50 or not p99:
            raise CommandError("wrk printed no results", said=printed.strip())
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
        return cls(
            _milliseconds(whole[2], whole[3]) / 1000,
            {int(status): int(count) for status, count in re.findall(r"^Status (\d+): (\d+)$", printed, re.MULTILINE)},
            sum(map(int, errors.groups())) if errors else 0,
            _milliseconds(p50[1], p50[2]),
            _milliseconds(p99[1], p99[2]),
        )

    @property
    def turns(self) -> int:
        """Answers that were turns."""
        return self.statuses.get(200, 0)

    @property
    def failed(self) -> int:
        """Answers that were none, and requests without one."""
        return sum(self.statuses.values()) - self.turns + self.lost

    @property
    def turns_per_second(self) -> float:
        """Of those that were answered."""
        return self.turns / self.seconds


class Wrk:
    """wrk: the machine's, or Debian's, unpacked into the cache without being installed."""

    def __init__(self) -> None:
        """Raises :class:`CommandError` where it is not to be had."""
        self._env: dict[str, str] = {}
        if program := shutil.which("wrk"):
            self._program = program
            return
        if not debian.has_apt():
            raise CommandError(f"wrk is not installed, or not in PATH: {MEND}")
        folder = debian.unpacked(PACKAGES)
        if not folder.exists():
            with exclusive(), step("unpacked: wrk"):
                debian.unpack(PACKAGES, with_what_they_need=True)
        self._program = str(folder / "usr" / "bin" / "wrk")
        libraries = {str(library.parent) for library in folder.rglob("*.so.*")}
        self._env = {"LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}

    def start(
        self, url: str, clients: int, seconds: int, script: Path, env: Mapping[str, str]
    ) -> "subprocess.Popen[str]":
        """Begins a load: so many clients, each with one request of ``script`` after the other, for so long.

        ``env`` is what the script reads from the environment.

        Raises:
            CommandError: the address is not one that load may go to.
        """
        check_address(url)
        return subprocess.Popen(  # noqa: S603 - the program that was found above
            [
                self._program,
                "--threads=1",
                f"--connections={clients}",
                f"--duration={seconds}s",
                f"--timeout={TIMEOUT_SECONDS}s",
                "--latency",
                f"--script={script}",
                url,
            ],
            env={**os.environ, **self._env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends the load itself
        )


def check_address(url: str) -> None:
    """Raises :class:`CommandError` unless load may go there: to this machine or to a node on it, never elsewhere."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise CommandError(f"{url} is not an address of this machine: load goes nowhere else") from error
    if not any(address in network for network in ALLOWED):
        raise CommandError(f"{url} is not an address of this machine: load goes nowhere else")


def _milliseconds(number: str, unit: str) -> float:
    return float(number) * _UNITS[unit]
