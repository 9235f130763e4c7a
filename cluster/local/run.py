"""`make local`: starts the programs, waits until they have come up, and stops them all when it is asked to."""

import fcntl
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from cluster import binaries, demo, screen
from cluster.binaries import DAPR_CONTROL_PLANE, DAPRD
from cluster.cache import exclusive
from cluster.client import CHAT, MEMORY
from cluster.errors import CommandError
from cluster.local import ports, processes, programs, redis, runfile, secretfile
from cluster.local.layout import (
    DATA,
    LOGS,
    PLACEMENT_PORT,
    REDIS_PORT,
    REMINDERS,
    SCHEDULER_PORT,
    SECRETS,
    SIDECARS,
    STATE,
)
from cluster.local.processes import Process
from cluster.local.programs import Program, Programs, Service
from cluster.local.runfile import App
from cluster.logs import show_end
from cluster.steps import say, step

TOOLS: Final = (DAPRD, DAPR_CONTROL_PLANE)
MODELS: Final = ("offline", "gemini")
DAPR_INIT: Final = {REDIS_PORT, PLACEMENT_PORT, SCHEDULER_PORT}
"""Ports of what the Dapr CLI leaves running."""

START_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = float(programs.GRACE_SECONDS) + 1
GONE_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TWICE_SECONDS: Final = 1.0
"""Two signals closer than this are one wish: a terminal and `make` both hand on what they get."""


def local(model: str) -> None:
    """Runs the services until Ctrl-C, or SIGTERM, or the end of the terminal; then stops everything and returns.

    ``model`` is one of :data:`MODELS`, or empty: then components/dapr.yaml decides.

    Raises:
        CommandError: something is missing or in the way, or a program has ended; everything is stopped by then.
    """
    if model and model not in MODELS:
        raise CommandError(
            f"MODEL={model} is none of {', '.join(MODELS)}: for others edit MODEL_PROVIDER in {runfile.RUN_FILE}",
            exit_code=2,
        )
    apps = programs.with_model(runfile.apps(), model)
    provider = programs.provider(apps)
    kept, source = secretfile.collect(provider, os.environ.get("GEMINI_API_KEY", "").strip())
    with _only_one():
        _clear_away()
        planned = _provided(apps)
        for folder in (DATA, REMINDERS, SIDECARS):
            folder.mkdir(parents=True, exist_ok=True)
        programs.NAMES.write_text(programs.names(apps))
        secretfile.write(kept)
        say(source)
        try:
            Run(planned, lambda: _announce(planned, provider)).go()
        finally:
            SECRETS.unlink()


@contextmanager
def _only_one() -> Iterator[None]:
    """Keeps a second run out of this checkout while the block lasts."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read().strip()
            raise CommandError(
                f"`make local` runs already in this checkout (process {pid}): use that one, or end it first, with "
                f"Ctrl-C or `kill {pid}`"
            ) from error
        file.truncate(0)
        print(os.getpid(), file=file, flush=True)
        yield


def _clear_away() -> None:
    """Ends what a run that was killed has left."""
    if left := processes.leftovers():
        with step(f"ended, left by a run that was killed: {', '.join(map(str, left))}"):
            processes.end(left)


def _provided(apps: list[App]) -> Programs:
    """The programs of a run; what they need is fetched and built.

    All that can be in the way is looked for first, and named in one line.
    """
    # Which Redis there will be is not known yet; the ports are the same.
    uses = programs.programs(apps, (), {}, "").ports
    if taken := ports.taken(uses):
        mend = "end that first"
        if taken.keys() & DAPR_INIT:
            mend += " (what `dapr init` started: docker stop dapr_redis dapr_placement dapr_scheduler)"
        raise CommandError(f"{ports.told(taken, uses)}; {mend}")
    missing = binaries.missing(TOOLS)
    problems = [redis.problem(), binaries.go_problem(missing) if missing else None]
    if any(problems):
        raise CommandError("; ".join(problem for problem in problems if problem))
    for line in redis.plan():
        say(f"first: {line}")
    if missing:
        names = ", ".join(tool.name for tool in missing)
        say(f"first: build from Go modules: {names} (once; about 10 minutes on two cores)")
        with exclusive():
            binaries.build(missing)
    server = redis.server()
    say(f"Redis {server.version}: {server.command[0]}")
    return programs.programs(apps, server.command, server.env, secrets.token_hex(16))


def _announce(planned: Programs, provider: str) -> None:
    console = screen.console()
    if provider == programs.OFFLINE:
        console.rule("The offline model answers: deterministic, no key, no network")
        console.print("For Gemini: GEMINI_API_KEY=<your key> make local MODEL=gemini", markup=False)
    else:
        console.rule(f"{provider} answers")
    lines = [
        f"{service.app.name:22}http://localhost:{service.port}"
        + (f"   its sidecar: http://localhost:{service.sidecar_port}" if service.sidecar_port else "")
        for service in planned.services
    ]
    lines += [
        "",
        "In another terminal:",
        *tutorial(planned),
        "",
        f"logs   {LOGS}/",
        f"state  {STATE}/ (the conversations; delete it to start anew)",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    console.rule("Ctrl-C stops it")


def tutorial(planned: Programs) -> list[str]:
    """The tutorial's conversation, as one types it."""
    at = {service.app.name: f"http://localhost:{service.port}" for service in planned.services}
    post = "curl -X POST {} -H 'Content-Type: application/json' -d '{}'"
    return [
        post.format(f"{at[MEMORY]}/memories/junaid/initialize", json.dumps(demo.MEMORY)),
        *(post.format(f"{at[CHAT]}/chat/", json.dumps({"user_id": "junaid", "text": text})) for text in demo.MESSAGES),
        f"curl {at[MEMORY]}/memories/junaid",
        f"curl {at[MEMORY]}/conversations/<session_id of an answer>",
    ]


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
            CommandError: a program has ended, or does not come up.
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
            both = [program for program in (service.app, service.sidecar) if program is not None]
            self._wait_for(" and ".join(program.name for program in both) + " answer", both)

    def _launch(self, program: Program) -> None:
        self._running[program.name] = Process(program)

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
        """Raises a CommandError when a program has ended."""
        for process in self._running.values():
            if end := process.end:
                show_end(process.log)
                raise CommandError(f"{process.name} has ended ({end}); all it said is in {process.log}")

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
            self._finish(self._planned.control_plane)
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
