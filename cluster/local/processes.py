"""Processes of a run, and what a run that was killed has left.

They end with the run, also when that is killed, where the system can see to it (Linux). Where it can't, the next run
finds them by a mark in their environment.
"""

import functools
import platform
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

import psutil

from cluster.errors import CommandError
from cluster.local.layout import LOGS, STATE
from cluster.local.programs import Program
from cluster.shell import succeeds

MARK: Final = "DACA_LOCAL_RUN"
"""The variable by which a process is known as one of a run: its name, a space, and the run's folder."""
END_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.05
REDIS: Final = "redis"


class Process:
    """A program that was started; its output goes to a file of its own."""

    def __init__(self, program: Program, *, again: bool = False) -> None:
        """``again``: its file goes on where it ended; otherwise it begins anew."""
        self.name = program.name
        self.started = time.monotonic()
        self._asked = False
        self.log = LOGS / f"{program.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab" if again else "wb") as log:
            # A session of its own: Ctrl-C in the terminal is for the run, which ends its processes in order.
            self._process = subprocess.Popen(
                [*_ends_with_us(), *program.command],
                env=program.environment() | {MARK: f"{program.name} {STATE}"},
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def end(self) -> str | None:
        """How it has ended, in words; ``None`` while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"

    def terminate(self) -> None:
        """Asks it to go, once: asked again, a service of ours would not wait for what is under way."""
        if not self._asked:
            self._asked = True
            self._process.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._process.wait()


class Leftover(NamedTuple):
    """A process of an earlier run in this checkout."""

    name: str
    process: psutil.Process

    def __str__(self) -> str:
        return f"{self.name} (process {self.process.pid})"


def leftovers() -> list[Leftover]:
    """What an earlier run has left. No run may be going on, or it is that one's."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is not ours to look at
            name, _, folder = process.environ().get(MARK, "").partition(" ")
            if folder == str(STATE):
                found.append(Leftover(name, process))
    return found


def end(left: Iterable[Leftover]) -> None:
    """Ends leftovers, at first politely, and Redis last: the others may have something to write.

    Raises:
        CommandError: one of them does not end.
    """
    left = list(left)
    _end([item for item in left if item.name != REDIS])
    _end([item for item in left if item.name == REDIS])


def _end(left: list[Leftover]) -> None:
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for item in left:
            with suppress(psutil.NoSuchProcess):
                ask(item.process)
        left = _alive(left, END_SECONDS)
    if left:
        raise CommandError(f"left by a run that was killed, and does not end: {', '.join(map(str, left))}")


def _alive(group: list[Leftover], seconds: float) -> list[Leftover]:
    """Those that have not ended after so long."""
    last = time.monotonic() + seconds
    while group := [item for item in group if _lives(item.process)]:
        if time.monotonic() > last:
            break
        time.sleep(POLL_SECONDS)
    return group


def _lives(process: psutil.Process) -> bool:
    try:
        # One that has ended stays in the process table until its parent, by now the system's first process, asks.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@functools.cache
def _ends_with_us() -> tuple[str, ...]:
    """What a command is started with so that the kernel ends it when this process ends, however that happens."""
    prefix = ("setpriv", "--pdeathsig", "TERM")
    return prefix if platform.system() == "Linux" and succeeds(*prefix, "true") else ()
