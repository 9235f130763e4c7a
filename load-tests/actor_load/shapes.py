"""Shapes: how the load goes over time. They know no Locust and no clock but the run's own time.

Four of them are phases whose times are known beforehand; :class:`StepsToKnee` looks at what is answered, and decides.
Every shape keeps within the users and the time it was given.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite
from typing import Final, Protocol

from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.record import EventKind, Figure, Knee, PhaseName, Section, Summary, Table
from actor_load.words import counted

Tick = tuple[int, float]
"""Users that should run now, and how many of them start or stop in a second."""

Window = Callable[[float], Summary]
"""What was answered in the last so many full seconds."""


class Note(Protocol):
    """Marks what happens in the run."""

    def __call__(self, kind: EventKind, text: str, phase: PhaseName | None = None) -> None:
        """``phase`` as in :class:`actor_load.record.Event`."""


FASTEST: Final = 100.0
"""Users that start in a second at most: beyond it Locust warns that it may not keep up."""

RAMP_SHARE: Final = 0.8
"""Of a ramp's time; the rest is a plateau, in which what the ramp has queued up shows."""

WARM_UP_SHARE: Final = 0.1
"""Of a soak's time, at most."""

SPIKE_BEGINS, SPIKE_ENDS = 1 / 3, 1 / 2
"""Shares of the time. The second half is for the way back to normal, which may take longer than the spike."""


class Shape(Protocol):
    """Decides the load of one run."""

    def tick(self, run_time: float) -> Tick | None:
        """The load ``run_time`` seconds into the run, asked about once a second; ``None`` ends the run."""


def shape(  # noqa: PLR0917 - in the order of -u, -r and -t
    options: Options, users: int, spawn_rate: float, run_time: float, window: Window, event: Note
) -> Shape:
    """The shape that the options ask for.

    Args:
        options: ``shape``, and what belongs to it.
        users: At most so many, Locust's ``-u``.
        spawn_rate: Users a second for ``constant`` and ``soak``, Locust's ``-r``. The other shapes have a pace of their
            own.
        run_time: Seconds, Locust's ``-t``.
        window: What was answered lately; only ``steps`` looks.
        event: Gets each phase as it begins.

    Raises:
        LoadError: one of the numbers makes no such shape; the message names it. Locust itself does not look at those
            that come from its web form.
    """
    if users < 1:
        raise LoadError(f"--users {users}: must be at least 1")
    if not (isfinite(spawn_rate) and spawn_rate > 0):
        raise LoadError(f"--spawn-rate {spawn_rate:g}: must be a number above 0")
    if not (isfinite(run_time) and run_time > 0):
        raise LoadError(f"--run-time {run_time:g}: must be a number of seconds above 0")
    match options.shape:
        case "ramp":
            return Phases(ramp(users, run_time), run_time, event)
        case "spike":
            return Phases(spike(users, run_time, options.spike_factor), run_time, event)
        case "soak":
            return Phases(constant(users, spawn_rate, run_time, run_time * WARM_UP_SHARE), run_time, event, spawn_rate)
        case "steps":
            return StepsToKnee(
                users=users,
                run_time=run_time,
                step_users=options.step_users,
                step_seconds=options.step_seconds,
                knee_p95=options.knee_p95,
                knee_error_rate=options.knee_error_rate,
                window=window,
                event=event,
            )
        case _:
            return Phases(constant(users, spawn_rate, run_time), run_time, event, spawn_rate)


@dataclass(frozen=True)
class Phase:
    """A stretch of a run in which the load is level or changes evenly."""

    name: PhaseName
    text: str
    until: float
    """Seconds into the run."""
    first: int
    """Users when it begins."""
    last: int
    """Users when it ends."""

    def users(self, share: float) -> int:
        """Users when ``share`` of it, 0 to 1, is over."""
        return self.first + floor((self.last - self.first) * share)


def constant(users: int, spawn_rate: float, run_time: float, warm_up: float | None = None) -> list[Phase]:
    """``users`` come at ``spawn_rate``, or sooner to be there after ``warm_up`` seconds, and stay."""
    level = Phase("level", _people(users), run_time, users, users)
    growing = (users - 1) / spawn_rate
    if warm_up is not None:
        growing = min(growing, warm_up)
    if growing < 1:  # a shape is asked once a second
        return [level]
    return [Phase("growth", f"grows to {_people(users)}", growing, 1, users), level]


def ramp(users: int, run_time: float) -> list[Phase]:
    """From one user to ``users``, evenly, and a plateau."""
    return [
        Phase("ramp", f"ramp from 1 user to {_people(users)}", run_time * RAMP_SHARE, 1, users),
        Phase("plateau", f"plateau of {_people(users)}", run_time, users, users),
    ]


def spike(users: int, run_time: float, factor: float) -> list[Phase]:
    """The usual load, all at once ``factor`` times as much, which is ``users``, and back.

    Raises:
        LoadError: there are too few users for a usual load.
    """
    usual = floor(users / factor)
    if usual < 1:
        raise LoadError(f"--users {users} is too few for --spike-factor {factor:g}: give at least {ceil(factor)}")
    return [
        Phase("usual", f"usual load, {_people(usual)}", run_time * SPIKE_BEGINS, usual, usual),
        Phase("spike", f"spike to {_people(users)}", run_time * SPIKE_ENDS, users, users),
        Phase("back", f"back to {_people(usual)}", run_time, usual, usual),
    ]


class Phases:
    """A shape of phases, one after the other; each is an event as it begins."""

    def __init__(self, phases: list[Phase], run_time: float, event: Note, fastest: float = FASTEST) -> None:
        """The run ends after ``run_time`` seconds in whatever phase it is. ``fastest`` users start in a second at most,
        where that is more than :data:`FASTEST`."""
        self._phases = phases
        self._run_time = run_time
        self._event = event
        self._pace = _Pace(max(fastest, FASTEST))
        self._current: Phase | None = None

    def tick(self, run_time: float) -> Tick | None:
        """See :class:`Shape`."""
        if run_time >= self._run_time:
            return None
        began, phase = next(
            (began, phase)
            for began, phase in zip([0.0, *(phase.until for phase in self._phases)], self._phases, strict=False)
            if run_time < phase.until
        )
        if phase is not self._current:
            self._current = phase
            self._event("phase", phase.text, phase.name)
        return self._pace.to(phase.users((run_time - began) / (phase.until - began)))


class _Pace:
    """How fast to go from one load to the next: it should be there at the next tick.

    A master of workers asks for no tick while users start (Locust's ``MasterRunner.start`` waits for them), so a slow
    pace would hold the shape up, and the end of the run with it. The same load is the same tick: Locust starts over
    with each tick that differs.
    """

    def __init__(self, fastest: float) -> None:
        self._fastest = fastest
        self._tick: Tick = (0, 1.0)

    def to(self, users: int) -> Tick:
        if change := abs(users - self._tick[0]):
            self._tick = users, min(self._fastest, float(change))
        return self._tick

    def seconds(self, users: int) -> float:
        """How long that takes beyond the one second."""
        return max(0.0, abs(users - self._tick[0]) / self._fastest - 1)


SETTLE_SHARE: Final = 0.4
"""Of a step's time: what is answered until then belongs to the change of load, and is not judged."""

SETTLE_SECONDS: Final = 3.0
"""It is at least so long where a step has the time: workers' reports come up to two seconds late."""

RESOLUTION: Final = 0.05
"""The search ends when the last good and the first bad step are so near, as a share of the users."""

FLAT: Final = 0.05
"""The rate does not grow any more where a good deal more users bring less than this share more."""

MORE_USERS: Final = 1.25
"""A good deal more users: so many times as many."""

SLOWER: Final = 1.1
"""Latency has grown: the median is so many times what it was."""

RECOVERY_STEPS: Final = 3
"""After a step that was too much, so many times ``step_seconds`` at most go to waiting until the queue is gone."""


@dataclass(frozen=True)
class Step:
    """One load, and what was answered under it once it had settled."""

    at: float
    """Seconds into the run, when it was judged."""
    users: int
    seen: Summary
    problem: str
    """Which bound broke; empty: none."""
    saturated: bool = False
    """It kept within the bounds, but more users brought no higher rate."""
    hiccup: bool = False
    """A first look saw a bound broken, a second one did not."""
    confirmed: bool = True
    """It was looked at twice, or kept within the bounds at once."""

    @property
    def verdict(self) -> str:
        """For the table."""
        said = self.problem or ("saturated: more users, no higher rate" if self.saturated else "within bounds")
        return said + (" at the second look" if self.hiccup else "") + ("" if self.confirmed else ", seen once")


class StepsToKnee:
    """Finds the highest rate that keeps within bounds: adds users step by step until they are too many, then halves.

    A step that breaks the bounds is looked at a second time at once, so that one hiccup does not end the search. When
    it is too much, the load goes down until the queue that it left is gone: otherwise the next step would be judged by
    the requests of this one. Then the search goes on half way between the last good and the first bad step, and so on.
    When nothing below the first bad step turns out to be too much, that step is tried again, and where it keeps within
    the bounds now, the search goes on from there.

    Users in a closed loop (each waits for its answer) slow down with the system: their rate stops to grow, and no bound
    need ever break. That, too, is a knee: a good deal more users, no higher rate, slower answers. Open arrivals do not
    slow down: beyond what the system can take its queue grows without end, as with real people, and the bounds break.
    With the class ``Arrivals`` at one turn a second, users and turns due a second are one number.
    """

    def __init__(
        self,
        *,
        users: int,
        run_time: float,
        step_users: int,
        step_seconds: float,
        knee_p95: float,
        knee_error_rate: float,
        window: Window,
        event: Note,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The arguments are those of :func:`shape`, and the options of the same name.

        Args:
            users: At most.
            run_time: Seconds at most; the search ends sooner when it knows.
            step_users: How many each step adds.
            step_seconds: How long a step holds once its users are there.
            knee_p95: Bound of the 95th percentile, ms.
            knee_error_rate: Bound of the share of failed requests, 0 to 1.
            window: What was answered lately.
            event: Gets each step, each break of a bound, and the end.
            clock: Unix time, for the section.

        Raises:
            LoadError: the time is too short for a single step.
        """
        self._most = users
        self._run_time = run_time
        self._step_users = step_users
        self._step_seconds = step_seconds
        settle = max(step_seconds * SETTLE_SHARE, min(SETTLE_SECONDS, step_seconds / 2))
        # A window has whole seconds: what was answered is counted by the second.
        self._look = max(1, floor(step_seconds - settle))
        self._settle = step_seconds - self._look
        self._knee_p95 = knee_p95
        self._knee_error_rate = knee_error_rate
        self._window = window
        self._event = event
        self._clock = clock
        self._pace = _Pace(FASTEST)
        self._now = 0.0
        self._started: float | None = None
        self._ended: float | None = None
        self._ending = "The run ended before the search did."
        self._good = 0
        self._bad: int | None = None
        self._search = self._plan()
        self.steps: list[Step] = []
        """As they were judged, in order of time."""
        if run_time < step_seconds:
            raise LoadError(
                f"--run-time {run_time:g}: too short for a step of --step-seconds {step_seconds:g}; "
                f"ten steps take {10 * step_seconds:g} s"
            )

    def tick(self, run_time: float) -> Tick | None:
        """See :class:`Shape`."""
        self._now = run_time
        if self._started is None:
            self._started = self._clock()
        if self._ended is not None:
            return None
        if run_time >= self._run_time:
            self._ending = self._out_of_time()
            tick = None
        else:
            tick = next(self._search, None)
        if tick is None:
            self._ended = self._clock()
            self._event("phase", f"steps end: {self._headline()}")
        return tick

    @property
    def knee(self) -> Step | None:
        """The step with the highest rate of those that kept within the bounds; ``None`` where none did."""
        return max((step for step in self.steps if not step.problem), key=lambda step: step.seen.rate, default=None)

    def section(self) -> Section | None:
        """What was found; ``None`` before the first tick."""
        if self._started is None:
            return None
        figures = [Figure(name="bounds", value=f"p95 {_ms(self._knee_p95)}, {_percent(self._knee_error_rate)} failed")]
        if knee := self.knee:
            figures[:0] = [
                Figure(name="highest rate within bounds", value=f"{knee.seen.rate:.1f}/s", note=_people(knee.users)),
                Figure(name="p95 at that rate", value=_ms(knee.seen.percentile_ms(95))),
            ]
        if self._bad is not None:
            figures.append(Figure(name="fewest users that broke the bounds", value=str(self._bad)))
        return Section(
            title="Steps to the knee",
            text=f"Every {self._step_seconds:g} s {_people(self._step_users)} more, until the 95th percentile is above "
            f"{_ms(self._knee_p95)} or more than {_percent(self._knee_error_rate)} of the requests fail; then half way "
            f"back, and so on. A rate counts what was answered without failure. {self._ending}",
            started=self._started,
            ended=self._ended or self._clock(),
            figures=figures,
            knee=Knee(rate=knee.seen.rate, users=knee.users, p95_ms=knee.seen.percentile_ms(95)) if knee else None,
            tables=[
                Table(
                    title="Steps, in order of time",
                    columns=["at", "users", "rate", "p50", "p95", "p99", "failed", "verdict"],
                    rows=[_row(step) for step in self.steps],
                )
            ],
        )

    def _headline(self) -> str:
        knee = self.knee
        return f"{knee.seen.rate:.1f}/s with {_people(knee.users)}" if knee else "no step kept within the bounds"

    def _plan(self) -> Iterator[Tick]:
        while (first_bad := (yield from self._climb())) is not None:
            self._bad = first_bad
            while self._bad - self._good > max(1, RESOLUTION * self._good):
                step = yield from self._try((self._good + self._bad) // 2)
                if step is None:
                    self._ending = self._out_of_time()
                    return
                if step.problem:
                    self._bad = step.users
                else:
                    self._good = step.users
            if self._bad == first_bad:
                # Nothing below it was too much. Was it, or was that a hiccup that outlasted the second look?
                again = yield from self._try(first_bad)
                if again is not None and not again.problem:
                    self._good, self._bad = first_bad, None
                    continue
            self._ending = f"{self._between()}." if self._good else "There is no knee: a single user breaks the bounds."
            return

    def _between(self) -> str:
        return f"The knee lies between {self._good} and {self._bad} users"

    def _out_of_time(self) -> str:
        if self._bad is not None:
            return f"{self._between()}: the time ended before more was known."
        return (
            f"The knee was not reached: --run-time ended at {_people(self._good)}. "
            "Give more time, or larger steps by --step-users."
        )

    def _climb(self) -> Generator[Tick, None, int | None]:
        """Step by step up; returns the users that were too many, ``None`` where it ends before."""
        while self._good < self._most:
            step = yield from self._try(min(self._good + self._step_users, self._most))
            if step is None:
                self._ending = self._out_of_time()
                return None
            if step.problem:
                return step.users
            self._good = step.users
            if step.saturated:
                self._ending = (
                    f"{_people(step.users)} saturate the system: more bring longer waits, and no higher rate."
                )
                return None
        self._ending = f"The knee was not reached: {_people(self._good)} keep within the bounds. Give more by --users."
        return None

    def _try(self, users: int) -> Generator[Tick, None, Step | None]:
        """One step; ``None`` where there is no time left for it."""
        if self.steps and self.steps[-1].problem:
            yield from self._recover()
        if self._now + self._pace.seconds(users) + self._step_seconds > self._run_time:
            return None
        self._event("phase", f"step to {_people(users)}", "step")
        yield from self._hold(users, self._settle + self._look)
        step = self._judge(users)
        if step.problem or step.saturated:
            # Until the second look this is what is known, should the time end.
            self.steps.append(replace(step, confirmed=False))
            yield from self._hold(users, self._look)
            first, step = self.steps.pop(), self._judge(users)
            step = replace(step, hiccup=bool(first.problem) and not step.problem)
        self.steps.append(step)
        if step.problem:
            self._event("problem", f"{_people(users)} too many: {step.problem}", "overload")
        return step

    def _recover(self) -> Iterator[Tick]:
        """Waits until what the step before has queued up is answered."""
        users = max(1, self._good // 2)
        self._event("phase", f"back to {_people(users)}, until the queue is gone", "overload")
        latest = self._now + RECOVERY_STEPS * self._step_seconds
        look = max(1, floor(self._settle))
        yield from self._hold(users, self._settle + look)
        while self._problem(self._window(look)) and self._now < latest:
            yield self._pace.to(users)

    def _hold(self, users: int, seconds: float) -> Iterator[Tick]:
        until = self._now + self._pace.seconds(users) + seconds
        while self._now < until:
            yield self._pace.to(users)

    def _judge(self, users: int) -> Step:
        seen = self._window(self._look)
        problem = self._problem(seen)
        return Step(
            at=self._now,
            users=users,
            seen=seen,
            problem=problem,
            saturated=not problem and self._saturated(users, seen),
        )

    def _problem(self, seen: Summary) -> str:
        """Which bound broke; empty: none."""
        p95 = seen.percentile_ms(95)
        if p95 is None:
            return "nothing was answered"
        if seen.error_rate > self._knee_error_rate:
            return f"{_percent(seen.error_rate)} failed"
        return f"p95 {_ms(p95)}" if p95 > self._knee_p95 else ""

    def _saturated(self, users: int, seen: Summary) -> bool:
        """Compared with the nearest step of a good deal fewer users: a step less may be too little less to tell."""
        fewer = [step for step in self.steps if not step.problem and step.users * MORE_USERS <= users]
        if not fewer:
            return False
        before = max(fewer, key=lambda step: step.users).seen
        grown = seen.rate > before.rate * (1 + FLAT)
        return not grown and (seen.percentile_ms(50) or 0) > (before.percentile_ms(50) or 0) * SLOWER


def _row(step: Step) -> list[str]:
    seen = step.seen
    return [
        f"{step.at:.0f} s",
        str(step.users),
        f"{seen.rate:.1f}/s",
        *(_ms(seen.percentile_ms(percent)) for percent in (50, 95, 99)),
        _percent(seen.error_rate),
        step.verdict,
    ]


def _people(users: int) -> str:
    return counted(users, "user")


def _ms(latency: float | None) -> str:
    return "-" if latency is None else f"{latency:g} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
