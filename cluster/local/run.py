"""A run: the programs from their start to their end."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

from cluster.errors import CommandError
from cluster.local.layout import DATA
from cluster.local.processes import Process
from cluster.local.programs import GRACE_SECONDS, Program, Programs, Service
from cluster.logs import show_end
from cluster.steps import say, step

START_SECONDS: Final = 120.0
"""A laptop that is busy takes its time to read all the Python there is."""
DRAIN_SECONDS: Final = float(GRACE_SECONDS) + 1
GONE_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 3.0
"""What ends sooner would end again."""
POLL_SECONDS: Final = 0.1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TWICE_SECONDS: Final = 1.0
"""Two signals closer than this are one wish: a terminal and `make` both hand on what they get."""


class Run:
    """The programs, from their start to their end."""

    def __init__(self, planned: Programs, when_up: Callable[[], None]) -> None:
        self._planned = planned
        self._when_up = when_up
        self._running: dict[str, Process] = {}
        self._asked_at: float | None = None
        self._hurried = False

    def go(self) -> None:
        """Starts all, waits until it is asked to stop, and stops all.

        Raises:
            CommandError: a program has ended for good, or does not come up.
            KeyboardInterrupt: it was asked to stop before all had come up.
        """
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            self._start()
            self._when_up()
            while self._asked_at is None:
                self._check()
                time.sleep(POLL_SECONDS)
        finally:
            self._asked_at = self._asked_at or time.monotonic()
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif number == signal.SIGINT and now - self._asked_at > TWICE_SECONDS:
            self._hurried = True

    def _start(self) -> None:
        planned = self._planned
        self._launch(planned.redis)
        self._wait_for("Redis answers", [planned.redis])
        self._launch(planned.trim)
        # What takes longest comes first: the services read much Python.
        for service in planned.services:
            self._launch(service.app)
        for program in planned.control_plane:
            self._launch(program)
        for service in planned.services:
            if service.sidecar is not None:
                self._launch(service.sidecar)
        self._wait_for("placement and scheduler answer", planned.control_plane)
        for service in sorted(planned.services, key=lambda service: service.sidecar is not None):
            if service.sidecar is None:
                self._wait_for(f"{service.app.name} answers", [service.app])
            else:
                self._wait_for(f"{service.app.name} and its sidecar answer", [service.app, service.sidecar])

    def _launch(self, program: Program, *, again: bool = False) -> None:
        self._running[program.name] = Process(program, again=again)

    def _wait_for(self, state: str, wanted: Iterable[Program]) -> None:
        with step(state):
            end = time.monotonic() + START_SECONDS
            waiting = list(wanted)
            while waiting := [program for program in waiting if not program.ready()]:
                self._check()
                if self._asked_at is not None:
                    raise KeyboardInterrupt
                if time.monotonic() > end:
                    log = self._running[waiting[0].name].log
                    show_end(log)
                    raise CommandError(
                        f"{waiting[0].name} has not come up in {START_SECONDS:.0f} s; all it said is in {log}"
                    )
                time.sleep(POLL_SECONDS)

    def _check(self) -> None:
        """Starts again what has ended of Dapr's control plane, as Kubernetes does.

        Raises:
            CommandError: another program has ended, or one of these when it had only just been started.
        """
        lasting = {program.name: program for program in self._planned.control_plane}
        for name, process in list(self._running.items()):
            end = process.end
            if end is None:
                continue
            if name not in lasting or time.monotonic() - process.started < STEADY_SECONDS:
                show_end(process.log)
                raise CommandError(f"{name} has ended ({end}); all it said is in {process.log}")
            say(f"{name} has ended ({end}): it is started again")
            self._launch(lasting[name], again=True)

    def _stop(self) -> None:
        try:
            say("stopping; Ctrl-C again stops at once")
        except OSError:  # the terminal has gone
            _mute()
        services = self._planned.services
        with step("the services have finished what was under way, and are stopped"):
            for service in services:
                self._drain(service)
            self._finish(program for service in services for program in (service.sidecar, service.app) if program)
        with step("Dapr and Redis are stopped"):
            self._finish([*self._planned.control_plane, self._planned.trim])
            # Last: the others may have had something to write.
            self._finish([self._planned.redis])
        say(f"stopped; the conversations are in {DATA} and come back with the next `make local`")

    def _drain(self, service: Service) -> None:
        """Lets a service finish while its sidecar is there; then the sidecar may go, and the service goes after it."""
        app = self._running.get(service.app.name)
        if app is not None and app.end is None:
            app.terminate()
            end = time.monotonic() + DRAIN_SECONDS if service.sidecar else 0.0
            while app.end is None and time.monotonic() < end and not self._hurried and not service.drained():
                time.sleep(POLL_SECONDS)
        if service.sidecar is not None and service.sidecar.name in self._running:
            self._running[service.sidecar.name].terminate()

    def _finish(self, wanted: Iterable[Program]) -> None:
        """Ends programs, at first politely."""
        going = [self._running[program.name] for program in wanted if program.name in self._running]
        for process in going:
            process.terminate()
        end = time.monotonic() + GONE_SECONDS
        while any(process.end is None for process in going) and time.monotonic() < end and not self._hurried:
            time.sleep(POLL_SECONDS)
        for process in going:
            if process.end is None:
                process.kill()


def _mute() -> None:
    """Sends what is still said to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
