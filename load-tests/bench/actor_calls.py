"""Calls of actors through a sidecar: each of a range once, as fast as answers come."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.children import end
from bench.wrk import Load, Wrk
from cluster import rest

ACTOR_TYPE: Final = "UserSessionActor"
SCRIPT: Final = Path(__file__).with_name("actors.lua")
ALL_ANSWERED: Final = "All are answered"
"""The script's line, upon which the load is ended."""
SLOWEST_RATE: Final = 200
"""Calls a second that are counted on: what takes longer is ended."""
GRACE_SECONDS: Final = 60


@dataclass(frozen=True)
class Pass:
    """Every actor was called once."""

    what: str
    calls: int
    failed: Mapping[str, int]
    """By what was answered in the place of what was wanted."""
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


class Caller:
    """Calls actors through a sidecar, so many at once."""

    def __init__(self, wrk: Wrk, address: str, users: range, at_once: int) -> None:
        self._wrk = wrk
        self._address = address
        self._users = users
        self._at_once = at_once
        self._prefix = f"a{int(time.time()):x}-"

    def all(self, what: str, method: str, body: object, turn_no: int) -> Pass:
        """Calls ``method`` of every actor; an answer of another ``turn_no`` has failed."""
        env = {
            "BENCH_FIRST": str(self._users.start),
            "BENCH_LAST": str(self._users.stop - 1),
            "BENCH_PATH": f"/v1.0/actors/{ACTOR_TYPE}/{self._prefix}%d/method/{method}",
            "BENCH_BODY": json.dumps(body),
            "BENCH_TURN_NO": str(turn_no),
        }
        calls = len(self._users)
        began, seconds = time.monotonic(), calls // SLOWEST_RATE + GRACE_SECONDS
        with self._wrk.start(self._address, self._at_once, seconds, SCRIPT, env) as process:
            try:
                printed, ended = _printed(process)
            finally:
                end(process)
        load = Load.parse(printed)
        failed = {told[1]: int(told[0]) for told in re.findall(r"^Failed (\d+): (.+)$", printed, re.MULTILINE)}
        if ALL_ANSWERED not in printed:
            failed["no answer"] = max(1, load.lost)
        return Pass(what, calls, failed, ended - began, load.p50_ms, load.p99_ms)

    def active(self) -> int:
        """How many actors are active."""
        answer = rest.call("GET", f"{self._address}/v1.0/metadata", timeout_seconds=10).json()
        found = answer["actorRuntime"].get("activeActors") or []
        return sum(item.get("count", 0) for item in found if item["type"] == ACTOR_TYPE)


def _printed(process: "subprocess.Popen[str]") -> tuple[str, float]:
    """All that the load printed, and when its last call was answered."""
    assert process.stdout is not None  # noqa: S101 - started with a pipe
    lines: list[str] = []
    ended: float | None = None
    for line in process.stdout:
        lines.append(line)
        if line.strip() == ALL_ANSWERED:
            ended = time.monotonic()
            process.send_signal(signal.SIGINT)  # it would wait for the end of its time
    return "".join(lines), ended or time.monotonic()
