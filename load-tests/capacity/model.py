"""How far it goes: what is fitted to the runs, how well that predicts others, and what follows for many users."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from statistics import median
from typing import Final

from capacity.fit import Estimate, Fit
from capacity.runs import Runs, Step
from cluster.client import CHAT, MEMORY

SIDECAR: Final = "'s daprd"
REDIS: Final = "Redis"
MODEL: Final = "model"
NODE: Final = "the node's own, Dapr's control plane"
PARTS: Final = (CHAT, CHAT + SIDECAR, MEMORY, MEMORY + SIDECAR, REDIS, MODEL, NODE)
"""Of which the CPU of a turn is made."""
CPU: Final = "CPU a turn"
"""How the checks of it begin."""
FITTED_PODS: Final = (1, 2)
FITTED_ACTORS: Final = 50_000
FITTED_HOSTS: Final = 200
FITTED_TURNS: Final = 20
"""The checks fit what is measured up to here, and predict the rest."""
POD_CLIENTS: Final = 8
"""Turns under way at once in a pod, where it is extrapolated: with more, a turn takes less."""
HOUR_SECONDS: Final = 3_600
ROUND_LIMIT_SECONDS: Final = 8.0
"""After which Dapr 1.18's placement closes the streams of hosts that have not answered."""


@dataclass(frozen=True)
class Demand:
    """What users do. All of it is assumed, none is measured."""

    turns_a_day: float = 10
    """Of each user."""
    busiest_hour: float = 0.12
    """Share of a day's turns that come in its busiest hour."""
    session_turns: float = 5
    """In a row; then the actor falls idle, and the next turn activates it again."""
    idle_seconds: float = 3_600
    """How long an actor stays active after its last turn: the chart's default."""
    characters: float = 400
    """Of a message and its reply."""
    days_kept: float = 365
    """How long what is stored stays."""
    busy: float = 0.6
    """Share of its core that a process may use in the busiest hour."""
    server_gib: float = 64
    """Memory of the largest Redis that one wants to run."""

    def peak(self, users: float) -> float:
        """Turns a second in the busiest hour."""
        return users * self.turns_a_day * self.busiest_hour / HOUR_SECONDS


@dataclass(frozen=True)
class Check:
    """A prediction from some measurements, against others."""

    what: str
    predicted: Estimate
    measured: Sequence[float]
    unit: str

    @property
    def middle(self) -> float:
        """The median of what was measured."""
        return median(self.measured)

    @property
    def miss(self) -> float:
        """By which share the middle is more than predicted, or less."""
        return self.middle / self.predicted.value - 1

    @property
    def held(self) -> bool:
        """Whether the middle is within the interval."""
        return self.predicted.holds(self.middle)


class Model:
    """What follows from the runs, for one kind of users."""

    def __init__(self, runs: Runs, demand: Demand) -> None:
        self.runs = runs
        self.demand = demand

    # CPU of a turn

    @cached_property
    def cpu(self) -> dict[str, Fit]:
        """Milliseconds of CPU a turn, by part, from all steps."""
        steps = self.runs.turns
        return {part: Fit.of(list(map(_row, steps)), [part_ms(step, part) for step in steps]) for part in PARTS}

    @cached_property
    def whole_cpu(self) -> Fit:
        """The same of all parts together."""
        return _whole_cpu(self.runs.turns)

    @cached_property
    def activation_ms(self) -> dict[str, Estimate]:
        """What a session's first turn takes more than a later one, by part."""
        more = {}
        for part in PARTS:
            fit = self.cpu[part]
            each = [part_ms(step, part) - fit.mean(_row(step)).value for step in self.runs.first_turns]
            more[part] = Fit.of([[1.0]] * len(each), each).coefficient(0)
        return more

    def turn_ms(self, part: str) -> Estimate:
        """A turn's CPU on many pods, where nearly every one reaches another pod than its actor's, with its share of an
        activation."""
        later = self.cpu[part].mean((1, 1, 1 / POD_CLIENTS))
        return later + self.activation_ms[part] * (1 / self.demand.session_turns)

    @property
    def whole_turn_ms(self) -> Estimate:
        """Of all parts."""
        return _sum(map(self.turn_ms, PARTS))

    def per_process(self, part: str) -> Estimate:
        """Turns a second that one process of a part takes, as busy as it may be."""
        return self.turn_ms(part).over(1000 * self.demand.busy)

    # Memory of active actors

    @cached_property
    def actor_bytes(self) -> dict[str, Fit]:
        """Bytes by process: of none, and for each active actor. From all looks."""
        return self._actor_bytes(max(look.active for look in self.runs.actors))

    def _actor_bytes(self, most: int) -> dict[str, Fit]:
        looks = [look for look in self.runs.actors if look.active <= most]
        rows = [(1.0, look.active) for look in looks]
        return {name: Fit.of(rows, [look.memory[name] for look in looks]) for name in looks[0].memory}

    @cached_property
    def activations_per_second(self) -> Estimate:
        """Of one pod on this machine, from all looks."""
        rates = [look.rate for look in self.runs.actors if look.rate]
        return Fit.of([[1.0]] * len(rates), rates).coefficient(0)

    def active(self, users: float) -> float:
        """Actors that are active in the busiest hour: each for as long as it takes to fall idle."""
        demand = self.demand
        return min(users, demand.peak(users) / demand.session_turns * demand.idle_seconds)

    @cached_property
    def actor_ms(self) -> Estimate:
        """Milliseconds of CPU of an activation with a first write, of all processes."""
        each = [sum(look.cpu_ms.values()) for look in self.runs.actors if look.cpu_ms]
        return Fit.of([[1.0]] * len(each), each).coefficient(0)

    # Redis

    def redis_fit(self, *, daily: bool, most_turns: float = float("inf")) -> Fit:
        """Bytes a user: of one that has said nothing, for each turn, and for each character of its turns.

        ``daily``: of what goes a day after its turn; else of what stays.
        """
        looks = [look for look in self.runs.users if look.turns <= most_turns]
        rows = [(1.0, look.turns, look.turns * look.characters) for look in looks]
        return Fit.of(rows, [sum((look.goes if daily else look.stays).values()) / look.users for look in looks])

    def redis_bytes(self, users: float) -> Estimate:
        """Of so many users, as soon as what comes is as much as what goes."""
        demand = self.demand
        turns = demand.turns_a_day * demand.days_kept
        stays = self.redis_fit(daily=False).mean((1, turns, turns * demand.characters))
        day = demand.turns_a_day
        goes = self.redis_fit(daily=True).mean((0, day, day * demand.characters))
        return (stays + goes) * users

    @property
    def commands(self) -> list[float]:
        """Of Redis a turn, with each number of pods."""
        return [
            sum(count for what, count in asked.items() if what.startswith("Redis command"))
            for asked in self.runs.calls.values()
        ]

    # Placement

    def round_fit(self, most_hosts: int) -> Fit:
        """Milliseconds of one of placement's rounds, by hosts: some for each, and for each row of each one's table."""
        looks = [look for look in self.runs.rounds if look.hosts <= most_hosts]
        measured = [(look, seconds) for look in looks for seconds in look.seconds]
        rows = [_hosts_row(look.hosts) for look, _ in measured]
        return Fit.of(rows, [1000 * seconds for _, seconds in measured], relative=True)

    @cached_property
    def rounds(self) -> Fit:
        """From all looks."""
        return self.round_fit(max(look.hosts for look in self.runs.rounds))

    def round_ms(self, hosts: float) -> Estimate:
        """Of so many hosts."""
        return self.rounds.mean(_hosts_row(hosts))

    def hosts_within(self, milliseconds: float) -> float:
        """So many hosts have rounds of this length."""
        first, each, pair = self.rounds.coefficients
        return (-each + sqrt(each**2 - 4 * pair * (first - milliseconds))) / (2 * pair)

    # The checks

    def checks(self) -> Iterator[Check]:
        """Everything that this machine could measure beyond what is fitted."""
        yield from self._checks_of_pods()
        yield from self._checks_of_actors()
        for look in self.runs.users:
            if look.turns > FITTED_TURNS:
                fit = self.redis_fit(daily=False, most_turns=FITTED_TURNS)
                found = sum(look.stays.values()) / look.users
                what = f"Redis, a user of {look.turns} turns of {look.characters:.0f} characters"
                yield Check(what, fit.next((1, look.turns, look.turns * look.characters)), [found], "bytes")
        fit = self.round_fit(FITTED_HOSTS)
        for seen in self.runs.rounds:
            if seen.hosts > FITTED_HOSTS:
                measured = [1000 * seconds for seconds in seen.seconds]
                yield Check(
                    f"a round of placement, {seen.hosts} hosts", fit.next(_hosts_row(seen.hosts)), measured, "ms"
                )

    def _checks_of_pods(self) -> Iterator[Check]:
        fitted = [step for step in self.runs.turns if step.pods in FITTED_PODS]
        beyond = [step for step in self.runs.turns if step.pods not in FITTED_PODS]
        fit = _whole_cpu(fitted)
        for pods, clients in dict.fromkeys((step.pods, step.clients) for step in beyond):
            steps = [step for step in beyond if (step.pods, step.clients) == (pods, clients)]
            where = f"{pods} pods, {clients} clients"
            cpu = fit.next(_row(steps[0]))
            yield Check(f"{CPU}, {where}", cpu, [sum(step.cpu_ms.values()) for step in steps], "ms")
            # As busy as two pods made the cores: one pod's process is at its end before they are.
            cores = median(step.cores for step in fitted if (step.pods, step.clients) == (2, clients))
            turns = cpu.over(1000 * cores)
            yield Check(f"turns a second, {where}", turns, [step.turns_per_second for step in steps], "/s")

    def _checks_of_actors(self) -> Iterator[Check]:
        fits = self._actor_bytes(FITTED_ACTORS)
        for look in self.runs.actors:
            if look.active > FITTED_ACTORS:
                for name, fit in fits.items():
                    found = [look.memory[name] / 1e6]
                    yield Check(
                        f"memory, {name}, {look.active:,} actors", fit.next((1, look.active)) * 1e-6, found, "MB"
                    )

    # What follows

    def sizes(self, users: float) -> "Sizes":
        """What so many users take."""
        peak = self.demand.peak(users)
        chat, memory, redis = (peak / self.per_process(part).value for part in (CHAT, MEMORY, REDIS))
        chat_pods, memory_pods = max(1, ceil(chat)), max(1, ceil(memory))
        active = self.active(users)
        memory_of_actors = _sum(fit.coefficient(1) for fit in self.actor_bytes.values()) * active
        idle = _sum(fit.coefficient(0) for fit in self.actor_bytes.values()) * chat_pods
        return Sizes(
            users,
            peak,
            self.whole_turn_ms * (peak / 1000),
            chat_pods,
            memory_pods,
            active,
            memory_of_actors + idle,
            self.turn_ms(REDIS) * (peak / 1000),
            self.redis_bytes(users),
            max(1, ceil(redis), ceil(self.redis_bytes(users).value / self.demand.server_gib / 2**30)),
            self.round_ms(chat_pods + memory_pods),
        )

    def ends(self) -> Iterator[tuple[str, float]]:
        """What ends where: its name, and the number of users at which it does."""
        a_user = self.demand.peak(1)
        yield "Redis: its one thread is busy", self.per_process(REDIS).value / a_user
        bytes_a_user = self.redis_bytes(1).value
        yield "Redis: its memory is full of what is kept", self.demand.server_gib * 2**30 / bytes_a_user
        per_user = a_user / self.per_process(CHAT).value + a_user / self.per_process(MEMORY).value
        yield "placement: a round takes 1 s", self.hosts_within(1000) / per_user
        yield (
            f"placement: a round takes {ROUND_LIMIT_SECONDS:.0f} s, and it gives hosts up",
            (self.hosts_within(1000 * ROUND_LIMIT_SECONDS) / per_user),
        )

    def core_hours(self) -> Estimate:
        """Of a million turns, with cores as busy as they may be."""
        return self.whole_turn_ms * (1_000_000 / 1000 / HOUR_SECONDS / self.demand.busy)

    def redis_gib_of_turns(self) -> Estimate:
        """GiB that a million turns leave in Redis for good."""
        fit = self.redis_fit(daily=False)
        return fit.mean((0, 1, self.demand.characters)) * (1_000_000 / 2**30)

    def active_gib_hours(self) -> Estimate:
        """GiB times hours that the active actors of a million turns take."""
        each = _sum(fit.coefficient(1) for fit in self.actor_bytes.values())
        hours = self.demand.idle_seconds / HOUR_SECONDS
        return each * (1_000_000 / self.demand.session_turns * hours / 2**30)


@dataclass(frozen=True)
class Sizes:
    """What so many users take in their busiest hour."""

    users: float
    turns_per_second: float
    cores: Estimate
    chat_pods: int
    memory_pods: int
    active: float
    actor_bytes: Estimate
    redis_cores: Estimate
    redis_bytes: Estimate
    cells: int
    """Bundles of their own, each with a Redis that is neither too busy nor too full."""
    round_ms: Estimate
    """If all hosts were in one namespace."""


def part_ms(step: Step, part: str) -> float:
    """Milliseconds of CPU a turn of one of :data:`PARTS`."""
    if part != NODE:
        return step.cpu_ms.get(part, 0.0)
    return sum(spent for name, spent in step.cpu_ms.items() if name not in PARTS)


def _row(step: Step) -> tuple[float, float, float]:
    """CPU of a turn: some; more where the call goes to another pod; and more where a pod has little to do at once."""
    return (1.0, 1 - 1 / step.pods, step.pods / step.clients)


def _whole_cpu(steps: Sequence[Step]) -> Fit:
    return Fit.of(list(map(_row, steps)), [sum(step.cpu_ms.values()) for step in steps])


def _hosts_row(hosts: float) -> tuple[float, float, float]:
    return (1.0, hosts, hosts**2)


def _sum(estimates: Iterable[Estimate]) -> Estimate:
    return sum(estimates, Estimate(0.0))
