"""Processes that a run starts, and ends again whatever happens."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cluster import rest
from cluster.errors import CommandError
from cluster.logs import show_end
from cluster.shell import succeeds

START_SECONDS: Final = 120.0
END_SECONDS: Final = 30.0
"""`make local` lets its services finish before it ends."""
POLL_SECONDS: Final = 0.2


class Child:
    """A process; its output goes to a file. ``with Child(...) as child:`` ends it, by its id."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._log = log
        # The kernel ends it when this process is killed, where it can.
        prefix = ("setpriv", "--pdeathsig", "TERM")
        ends_with_us = prefix if succeeds(*prefix, "true") else ()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - programs of ours
                [*ends_with_us, *command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends what it has started in order
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def wait_for_turn(self, url: str, user: str) -> None:
        """Waits until a first turn at ``url`` is answered.

        Raises:
            CommandError: none is, or the process has ended.
        """
        last = time.monotonic() + START_SECONDS
        while (problem := turn_problem(url, user)) is not None:
            if (code := self._process.poll()) is not None:
                show_end(self._log)
                raise CommandError(f"{self._name} has ended (exit code {code}); the end of what it said is above")
            if time.monotonic() > last:
                show_end(self._log)
                raise CommandError(f"{self._name} took no turn in {START_SECONDS:.0f} s: {problem}")
            time.sleep(POLL_SECONDS)


def turn_problem(url: str, user: str) -> str | None:
    """Sends one message; why it was not answered with a reply, or ``None``."""
    body = {"user_id": user, "text": "hello there", "metadata": {"session_id": f"s-{user}"}}
    try:
        answer = rest.call("POST", url, body, timeout_seconds=10)
    except rest.Unreachable as error:
        return str(error)
    try:
        replied = answer.status == 200 and bool(answer.json()["reply"])
    except (ValueError, KeyError, TypeError):
        replied = False
    return None if replied else f"{url} answered {answer.status}: {answer.text[:200]}"


def end(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Ends a process, at first politely."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
