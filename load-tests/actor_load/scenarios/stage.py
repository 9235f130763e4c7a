"""What scenarios are made of: load, actions on the cluster, waiting until it has settled, visits to actors."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import gevent
from gevent import GreenletExit
from locust.env import Environment

from actor_load.cluster import HostDeployment
from actor_load.conductor import LEAVE_SECONDS, Plan, Tick
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.phases import TAIL_SECONDS
from actor_load.placement.rendezvous import Rendezvous
from actor_load.placement.ring import Ring
from actor_load.placement.rule import rule
from actor_load.record import (
    RETRY_PREFIX,
    Check,
    Figure,
    Knee,
    PlacementSample,
    Placer,
    Section,
    Summary,
    Table,
)
from actor_load.recorder import REPORT_SECONDS, Recorder
from actor_load.shapes import FASTEST
from actor_load.users.visits import VISITORS, Round, Rounds
from actor_load.words import counted, latency

SETTLE_SECONDS: Final = 240.0
"""How long the cluster may take to come to rest: a rolling update of six pods included."""

KUBELET_SECONDS: Final = 15.0

BESIDE_LOAD: Final = 2
"""Actors that are visited at once while people chat."""

REPORTS_SECONDS: Final = 2 * REPORT_SECONDS + 1
"""Until all processes have told what they had counted."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """One action on the cluster under load."""

    text: str
    started: float
    settled_seconds: float
    ended: float
    """Shortly after all was settled."""


@dataclass(frozen=True)
class Cost:
    """What a change cost those who were chatting."""

    change: Change
    turns: Summary
    """Those that were due while it lasted, however late they were answered."""
    retries: int

    def row(self) -> list[str]:
        """For :data:`CHANGE_COLUMNS`."""
        return [
            self.change.text,
            f"{self.change.settled_seconds:.1f} s",
            str(self.turns.answered),
            str(self.turns.failed),
            str(self.retries),
            latency(self.turns.percentile_ms(50)),
            latency(self.turns.percentile_ms(99)),
            latency(self.turns.slowest_ms),
        ]


CHANGE_COLUMNS: Final = ["change", "settled after", "turns", "failed", "retries", "p50", "p99", "slowest"]


@dataclass
class Findings:
    """What becomes a section, while it is collected."""

    title: str
    text: str
    started: float = field(default_factory=time.time)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    knee: Knee | None = None

    def figure(self, name: str, value: str, note: str = "") -> None:
        """Adds a number."""
        self.figures.append(Figure(name=name, value=value, note=note))

    def table(self, title: str, columns: list[str], rows: Iterable[list[str]]) -> None:
        """Adds a table, unless it is empty."""
        if found := list(rows):
            self.tables.append(Table(title=title, columns=columns, rows=found))

    def check(self, name: str, passed: bool, detail: str) -> None:
        """Adds something that had to hold."""
        self.checks.append(Check(name=name, passed=passed, detail=detail))

    def costs(self, costs: list[Cost]) -> None:
        """The table of changes, and that none of them failed a turn."""
        self.table("What each change cost", CHANGE_COLUMNS, (cost.row() for cost in costs))
        failed = sum(cost.turns.failed for cost in costs)
        slowest = max((cost.turns.slowest_ms or 0 for cost in costs), default=0)
        self.figure("slowest turn during a change", latency(slowest))
        self.figure("failed turns during changes", str(failed))
        answered = sum(cost.turns.answered for cost in costs)
        detail = f"{failed} of {answered} failed"
        self.check("no turn failed while pods came and went", failed == 0 < answered, detail)


class Stage:
    """One scenario under way: a plan for the conductor, and hands for the scenario's script."""

    def __init__(
        self,
        script: Callable[["Stage"], None],
        *,
        environment: Environment,
        recorder: Recorder,
        options: Options,
        users: int,
        deployment: HostDeployment,
        rounds: Rounds,
    ) -> None:
        self.options = options
        self.users = users
        """As asked for with ``--users``."""
        self.recorder = recorder
        self.deployment = deployment
        self._environment = environment
        self._rounds = rounds
        self._script = script
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._plan: Plan | None = None
        self._plan_started = 0.0
        self._users = 0
        self._base_users = sum(user.fixed_count for user in environment.user_classes)
        self._spawn_rate = FASTEST

    def tick(self, run_time: float) -> Tick | None:  # noqa: ARG002 - a script ends by itself
        """For the conductor: the load that the script asked for, until it is through."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._play)
        if self._greenlet.ready():
            return None
        if self._plan is not None:
            target = self._plan.tick(time.monotonic() - self._plan_started)
            if target is None:
                self._plan = None
            else:
                self._users, self._spawn_rate = target
        return self._base_users + self._users, self._spawn_rate

    def stop(self) -> None:
        """Ends the script where it is, and puts the cluster back."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def load(self, users: int) -> None:
        """From now on so many users; returns when they are there.

        With the class Arrivals a user is a stream of ``--arrival-rate`` turns a second.
        """
        if users != self._users:
            self.recorder.event("phase", counted(users, "user"), "load")
        self._users, self._spawn_rate = users, FASTEST
        self.wait(lambda: self._running() == self._base_users + users, 60, f"{counted(users, 'user')} to start")

    def play(self, plan: Plan, seconds: float) -> None:
        """Lets a shape decide the load until it ends, after ``seconds`` at the latest; then nobody is left."""
        self._plan_started, self._plan = time.monotonic(), plan
        self.wait(lambda: self._plan is None, seconds + LEAVE_SECONDS, "the shape to end")
        self.load(0)

    def sleep(self, seconds: float) -> None:
        """Lets the load go on."""
        gevent.sleep(seconds)

    def wait(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until ``reached``.

        Raises:
            LoadError: it took longer than ``seconds``.
        """
        end = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > end:
                raise LoadError(f"waited {seconds:.0f} s for {what} in vain")
            gevent.sleep(0.2)

    def sample(self) -> PlacementSample:
        """The next look at placement, made from now on."""
        now = time.time()
        samples = self.recorder.record.placement
        self.wait(lambda: bool(samples) and samples[-1].at >= now, 60, "a look at placement")
        return samples[-1]

    def sample_with_memory(self) -> PlacementSample:
        """The next look in which the containers' memory is of now: the kubelet looks at it every 10 to 15 s."""
        self.sleep(KUBELET_SECONDS)
        return self.sample()

    def settle(self, pods: int, gone: frozenset[str] = frozenset()) -> float:
        """Waits until so many pods host actors, none of ``gone`` among them, and all have a table.

        Returns the Unix time at which it was seen.
        """
        seen: list[PlacementSample] = []
        started = time.time()

        def settled() -> bool:
            samples = self.recorder.record.placement
            if samples and samples[-1].at >= started and is_settled(samples[-1], self.options.actor_type, pods, gone):
                seen.append(samples[-1])
            return bool(seen)

        self.wait(settled, SETTLE_SECONDS, f"{counted(pods, 'pod')} to host {self.options.actor_type}")
        self.recorder.event("settled", f"the actors live on {counted(pods, 'pod')}")
        return seen[-1].at

    def prepare(self, pods: int) -> None:
        """Brings the cluster to so many pods before the load starts; it is not measured."""
        self.deployment.scale(pods)
        self.recorder.event("action", f"to begin with, {counted(pods, 'pod')}")
        self.settle(pods)

    def change(self, text: str, action: Callable[[], None], pods: int, gone: frozenset[str] = frozenset()) -> Change:
        """Does something to the cluster under load, until all is settled; :meth:`costs` says what it cost."""
        started = time.time()
        self.recorder.event("action", text, "change")
        action()
        settled = self.settle(pods, gone)
        self.sleep(TAIL_SECONDS)
        return Change(text, started, settled - started, time.time())

    def scale(self, before: int, after: int) -> Change:
        """A :meth:`change` of the number of pods."""
        return self.change(f"scale {before} -> {after}", lambda: self.deployment.scale(after), after)

    def finish_turns(self) -> None:
        """Nobody sends any more; returns when all that was sent is answered, or given up, and counted."""
        self.load(0)
        self.sleep(REPORTS_SECONDS)

    def costs(self, changes: Iterable[Change]) -> list[Cost]:
        """What each change cost, as far as turns are answered: :meth:`finish_turns` comes first."""
        return [
            Cost(
                change,
                self.recorder.due(change.started, change.ended),
                self.recorder.record.summary(change.started, change.ended, RETRY_PREFIX).answered,
            )
            for change in changes
        ]

    def visit(self, count: int) -> "Visit":
        """Calls ``count`` actors once, and compares where they are with the ring.

        Where people chat meanwhile only few are called at once: it is the change that is measured, not the visits.
        """
        sample = self.sample()
        table = {
            host.address: next((pod.name for pod in sample.pods if pod.ip == host.address.rpartition(":")[0]), "")
            for host in sample.hosts
            if self.options.actor_type in host.actor_types
        }
        started = time.time()
        self.recorder.event("phase", f"{count:,} actors are visited")
        number = self._rounds.begin(count, table, BESIDE_LOAD if self._users else VISITORS, sample.placer)
        self.wait(lambda: self._rounds.result(number) is not None, 60 + count / 20, f"{count:,} actors to answer")
        found = self._rounds.result(number)
        assert found is not None  # noqa: S101 - that is what was waited for
        return Visit(count, sample.placer, table, found, started, time.time())

    @contextmanager
    def section(self, title: str, text: str) -> Iterator[Findings]:
        """What is found in the block becomes a section of the report, also when the block breaks off."""
        findings = Findings(title, text)
        try:
            yield findings
        finally:
            self.recorder.record.sections.append(Section(ended=time.time(), **vars(findings)))

    def _running(self) -> int:
        runner = self._environment.runner
        return runner.user_count if runner else 0

    def _play(self) -> None:
        end = "the scenario came to its end"
        try:
            self._script(self)
        except GreenletExit:
            self._failed(end, "it was interrupted")
        except LoadError as error:
            self._failed(end, str(error))
        except Exception as error:
            log.exception("the scenario broke off")
            self._failed(end, f"{type(error).__name__}: {error}")
        finally:
            try:
                self.deployment.restore()
            except LoadError as error:
                self._failed("the cluster is as it was before", str(error))

    def _failed(self, check: str, why: str) -> None:
        """The run has failed, whatever its sections found until then."""
        self.recorder.event("problem", why)
        with self.section("What went wrong", why) as findings:
            findings.check(check, False, why)


@dataclass(frozen=True)
class Visit:
    """What a round of visits found."""

    count: int
    placer: Placer
    table: dict[str, str]
    """Address -> pod, of the hosts at the time."""
    found: Round
    started: float
    ended: float

    @property
    def rate(self) -> float:
        """Actors answered in a second."""
        return self.count / (self.ended - self.started)

    @property
    def ring(self) -> Ring | Rendezvous:
        """Placement at the time, as simulated."""
        return rule(self.placer, self.table)


def is_settled(sample: PlacementSample, actor_type: str, pods: int, gone: frozenset[str] = frozenset()) -> bool:
    """Whether so many pods host actors, none of ``gone`` among them; none comes or goes, and all have a table."""
    hosts = [host for host in sample.hosts if actor_type in host.actor_types]
    return (
        not sample.problems
        and len(hosts) == len(sample.pods) == pods
        and all(pod.ready and not pod.leaving and pod.placed is True and pod.name not in gone for pod in sample.pods)
    )
