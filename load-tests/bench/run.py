"""The order of a run: in turns, every system at every number of clients, round after round."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import calls, cpu, first_token
from bench.children import end
from bench.systems import System
from bench.wrk import Load, Wrk
from cluster.errors import CommandError

SCRIPT: Final = Path(__file__).with_name("post.lua")
WARM_SECONDS: Final = 3
WARM_CLIENTS: Final = 8
RISE_SECONDS: Final = 1.0
"""Of a step, before its CPU is looked at: connections are made, and what the last step left is done."""
FALL_SECONDS: Final = 0.5
"""The same before its end: the last answers come one by one."""
SETTLE_SECONDS: Final = 2.0
"""After a step: events are still being delivered, and would be part of the next one."""
GRACE_SECONDS: Final = 40.0
"""What wrk may take longer than it was told to."""


@dataclass(frozen=True)
class Step:
    """One system under one number of clients, once."""

    round: int
    system: str
    clients: int
    load: Load
    cpu_ms: dict[str, float]
    """Milliseconds of CPU a turn, by process."""
    elsewhere: float
    """Cores that were busy with what is neither this system nor its load: how disturbed the figures are."""
    first_token_ms: float | None = None
    """Of a stream, in the middle; at one client, where the system streams."""


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: int
    clients: Sequence[int]
    users: int
    prefix: str = field(default_factory=lambda: f"b{int(time.time()):x}-")
    """Of user ids: those of another run are others, so that every run begins with people who have said nothing."""


class Run:
    """A plan on systems that are up."""

    def __init__(self, wrk: Wrk, plan: Plan, look: Callable[[], cpu.Processes] = cpu.look) -> None:
        self._wrk = wrk
        self._plan = plan
        self._look = look

    def steps(self, systems: Sequence[System]) -> Iterator[Step]:
        """One after the other, as they are done."""
        for number in range(1, self._plan.rounds + 1):
            for system in systems:
                system.prepare()
                self._load(system, WARM_CLIENTS, WARM_SECONDS, number)
                for clients in self._plan.clients:
                    yield self._step(system, clients, number)

    def calls(self, system: System, clients: int) -> dict[str, float]:
        """What a turn asks of sidecars and Redis, over one step that is not timed.

        Raises:
            CommandError: no turn was answered, or not every one.
        """
        assert system.counters is not None  # noqa: S101 - asked for systems that count
        system.prepare()
        time.sleep(SETTLE_SECONDS)
        before = system.counters()
        load = self._load(system, clients, self._plan.seconds, 0)
        after = system.counters()
        if load.failed or not load.turns:
            raise CommandError(f"{system.name}: {load.failed} turns failed, so there is nothing to divide by")
        # At the end wrk hangs up on a turn of every client; they are taken all the same.
        return calls.per_turn(before, after, load.turns + clients)

    def _step(self, system: System, clients: int, number: int) -> Step:
        looks: list[tuple[float, cpu.Processes]] = []
        generator: list[int] = []

        def watch(pid: int) -> None:
            generator.append(pid)
            time.sleep(RISE_SECONDS)
            looks.append((time.monotonic(), self._look()))
            time.sleep(self._plan.seconds - RISE_SECONDS - FALL_SECONDS)
            looks.append((time.monotonic(), self._look()))

        streams = system.streams and clients == 1
        first_token_ms = first_token.measure(system.url, f"{self._plan.prefix}stream") if streams else None
        load = self._load(system, clients, self._plan.seconds, number, watch)
        (began, before), (ended, after) = looks
        turns = load.turns_per_second * (ended - began)
        spent = cpu.spent(before, after, system.scope)
        everyone = sum(cpu.spent(before, after, set).values())
        made = sum(cpu.spent(before, after, cpu.below(*generator)).values())
        return Step(
            number,
            system.name,
            clients,
            load,
            {name: 1000 * seconds / turns for name, seconds in spent.items()} if turns else {},
            (everyone - made - sum(spent.values())) / (ended - began),
            first_token_ms,
        )

    def _load(
        self, system: System, clients: int, seconds: int, number: int, watch: Callable[[int], None] | None = None
    ) -> Load:
        env = {
            "BENCH_USERS": str(self._plan.users),
            "BENCH_PREFIX": self._plan.prefix,
            "BENCH_SEED": str(1000 * number + clients),
        }
        process = self._wrk.start(system.url, clients, seconds, SCRIPT, env)
        try:
            if watch:
                watch(process.pid)
            printed = process.communicate(timeout=seconds + GRACE_SECONDS)[0]
        finally:
            end(process)
        time.sleep(SETTLE_SECONDS)
        return Load.parse(printed)
