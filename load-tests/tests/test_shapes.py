"""How the load goes over time; the search for the knee on a simulated system whose capacity is known."""

import heapq
import json
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.record import EventKind, PhaseName, Second, Section, Summary, rounded
from actor_load.shapes import FASTEST, RAMP_SHARE, WARM_UP_SHARE, Shape, StepsToKnee, Tick, shape

TIMED = ["constant", "ramp", "spike", "soak"]


@dataclass
class Events:
    """What a shape marked."""

    seen: list[tuple[EventKind, str]] = field(default_factory=list)

    def __call__(self, kind: EventKind, text: str, phase: PhaseName | None = None) -> None:
        self.seen.append((kind, text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.seen]


def nothing_answered(seconds: float) -> Summary:
    return Summary.of([], seconds)


def played(
    options: Options, users: int, spawn_rate: float, run_time: float, event: Events | None = None
) -> list[tuple[float, Tick]]:
    """Every tick of a shape, asked a little later than once a second, as Locust does."""
    made = shape(options, users, spawn_rate, run_time, nothing_answered, event or Events())
    return list(ticks(made, run_time))


def ticks(made: Shape, run_time: float) -> Iterator[tuple[float, Tick]]:
    now = 0.0
    while (tick := made.tick(now)) is not None:
        assert now < run_time, "it goes on after -t"
        yield now, tick
        now += 1.003


def users_over_time(name: str, users: int, spawn_rate: float, run_time: float) -> list[int]:
    return [tick[0] for _, tick in played(Options(shape=name), users, spawn_rate, run_time)]


class TestEveryShape:
    @pytest.mark.parametrize("name", TIMED)
    @pytest.mark.parametrize("users", [5, 7, 100, 1000])
    @pytest.mark.parametrize("spawn_rate", [0.1, 1.0, 50.0, 5000.0])
    @pytest.mark.parametrize("run_time", [1, 10, 300])
    def test_it_keeps_within_users_and_time_and_has_always_somebody(
        self, name: str, users: int, spawn_rate: float, run_time: float
    ) -> None:
        seen = played(Options(shape=name), users, spawn_rate, run_time)

        assert all(1 <= there <= users for _, (there, _) in seen)
        assert run_time - 1.003 <= seen[-1][0] < run_time

    @pytest.mark.parametrize("name", TIMED)
    def test_a_load_is_there_within_a_second_and_locust_is_not_warned(self, name: str) -> None:
        before = 0
        for _, (there, rate) in played(Options(shape=name), 90, 5, 120):
            assert rate >= 1
            assert abs(there - before) <= rate <= FASTEST
            before = there

    @pytest.mark.parametrize("name", [*TIMED, "steps"])
    def test_the_same_load_is_the_same_tick(self, name: str) -> None:
        # Locust starts over with each tick that differs, even if only in its rate.
        for (_, before), (_, after) in pairwise(played(Options(shape=name), 40, 5, 120)):
            assert (before[0] == after[0]) == (before == after)

    @pytest.mark.parametrize("name", [*TIMED, "steps"])
    @pytest.mark.parametrize(
        ("users", "spawn_rate", "run_time", "message"),
        [
            (0, 1, 60, "--users 0: must be at least 1"),
            (-5, 1, 60, "--users -5: must be at least 1"),
            (10, 0, 60, "--spawn-rate 0: must be a number above 0"),
            (10, float("nan"), 60, "--spawn-rate nan: must be a number above 0"),
            (10, 1, 0, "--run-time 0: must be a number of seconds above 0"),
            (10, 1, float("inf"), "--run-time inf: must be a number of seconds above 0"),
        ],
    )
    def test_a_number_of_the_web_form_that_makes_no_load_is_named(
        self, name: str, users: int, spawn_rate: float, run_time: float, message: str
    ) -> None:
        with pytest.raises(LoadError, match=f"^{message}$"):
            shape(Options(shape=name), users, spawn_rate, run_time, nothing_answered, Events())


class TestConstant:
    def test_users_come_at_the_spawn_rate_and_stay(self) -> None:
        seen = played(Options(shape="constant"), 20, 2, 60)

        assert all(there == pytest.approx(min(20, 1 + 2 * at), abs=1) for at, (there, _) in seen)
        assert [there for _, (there, _) in seen][-40:] == [20] * 40

    def test_all_come_at_once_where_the_rate_allows_it(self) -> None:
        assert set(users_over_time("constant", 20, 20, 30)) == {20}

    def test_a_time_too_short_for_all_of_them_ends_all_the_same(self) -> None:
        assert max(users_over_time("constant", 500, 1, 20)) == 20

    def test_a_spawn_rate_above_the_usual_is_kept(self) -> None:
        assert played(Options(shape="constant"), 1000, 500, 10)[1][1] == (502, 500.0)

    def test_growth_and_level_are_marked(self) -> None:
        event = Events()
        played(Options(shape="constant"), 20, 2, 60, event)
        assert event.seen == [("phase", "grows to 20 users"), ("phase", "20 users")]


class TestRamp:
    @pytest.mark.parametrize("users", [1, 2, 30, 1000])
    def test_it_goes_up_evenly_from_one_user_to_a_plateau(self, users: int) -> None:
        seen = played(Options(shape="ramp"), users, 1, 200)

        assert seen[0][1][0] == 1
        assert all(before <= after for (_, (before, _)), (_, (after, _)) in pairwise(seen))
        for at, (there, _) in seen:
            share = min(1, at / (200 * RAMP_SHARE))
            assert there == pytest.approx(1 + (users - 1) * share, abs=1)
        assert {there for at, (there, _) in seen if at >= 200 * RAMP_SHARE} == {users}


class TestSpike:
    @pytest.mark.parametrize("factor", [2, 5, 7.5])
    def test_the_peak_is_all_users_and_the_rest_that_much_less(self, factor: float) -> None:
        seen = users_over_time_of_spike(60, factor)

        usual = int(60 / factor)
        assert [there for there, after in pairwise([*seen, 0]) if there != after] == [usual, 60, usual]

    def test_it_comes_after_a_third_and_half_of_the_time_is_for_the_way_back(self) -> None:
        seen = played(Options(shape="spike"), 50, 1, 120)

        assert {there for at, (there, _) in seen if at < 40} == {10}
        assert {there for at, (there, _) in seen if 40 <= at < 60} == {50}
        assert {there for at, (there, _) in seen if at >= 60} == {10}

    def test_its_phases_are_marked_for_the_charts(self) -> None:
        event = Events()
        played(Options(shape="spike"), 50, 1, 120, event)
        assert event.seen == [
            ("phase", "usual load, 10 users"),
            ("phase", "spike to 50 users"),
            ("phase", "back to 10 users"),
        ]

    def test_too_few_users_for_a_spike_are_one_line(self) -> None:
        with pytest.raises(LoadError, match=r"^--users 4 is too few for --spike-factor 5: give at least 5$"):
            shape(Options(shape="spike"), 4, 1, 60, nothing_answered, Events())


def users_over_time_of_spike(users: int, factor: float) -> list[int]:
    return [tick[0] for _, tick in played(Options(shape="spike", spike_factor=factor), users, 1, 300)]


class TestSoak:
    @pytest.mark.parametrize("spawn_rate", [0.01, 1, 20, 500])
    def test_it_is_level_after_a_tenth_of_the_time_at_most(self, spawn_rate: float) -> None:
        seen = played(Options(shape="soak"), 100, spawn_rate, 600)

        assert all(before <= after for (_, (before, _)), (_, (after, _)) in pairwise(seen))
        assert {there for at, (there, _) in seen if at >= 600 * WARM_UP_SHARE} == {100}

    def test_the_spawn_rate_makes_it_quicker(self) -> None:
        assert users_over_time("soak", 100, 20, 600)[5:] == [100] * len(users_over_time("soak", 100, 20, 600)[5:])


@dataclass
class System:
    """A queue before so many servers, and the users of it, event by event; time is simulated.

    Open users each are due once a second in the mean (Poisson), whatever is answered. Closed ones wait for their
    answer, think, and ask again.
    """

    servers: int
    service: float
    """Seconds, in the mean; exponentially distributed."""
    think: float | None
    """Seconds, in the mean; ``None``: open arrivals."""
    seed: int
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """From when to when nothing is answered."""
    places: float = float("inf")
    """Requests that may wait; more are refused at once."""
    lag: float = 1.0
    """What a window leaves out at its end, as the recorder's does."""
    now: float = 0.0
    users: int = 0
    _busy: int = 0
    _queue: deque[tuple[float, int]] = field(default_factory=deque)
    _events: list[tuple[float, int, str, tuple[float, int]]] = field(default_factory=list)
    _seconds: dict[int, Second] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @property
    def capacity(self) -> float:
        return self.servers / self.service

    def set_users(self, users: int) -> None:
        for user in range(self.users, users):
            self._at(self.now + self._random.random() * (1 if self.think is None else self.think or 0.01), "due", user)
        self.users = users

    def advance(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, what, (since, user) = heapq.heappop(self._events)
            getattr(self, f"_{what}")(since, user)
        self.now = until

    def window(self, seconds: float) -> Summary:
        ended = int(self.now - self.lag)
        picked = range(int(ended - seconds), ended)
        return Summary.of((self._seconds[at] for at in picked if at in self._seconds), seconds)

    def _at(self, when: float, what: str, user: int, since: float | None = None) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what, (when if since is None else since, user)))

    def _due(self, since: float, user: int) -> None:
        if user >= self.users:
            return
        if self.think is None:
            self._at(since + self._random.expovariate(1), "due", user)
        if self._busy < self.servers:
            self._serve(since, user)
        elif len(self._queue) < self.places:
            self._queue.append((since, user))
        else:
            self._answer(since, user, failed=True)

    def _serve(self, since: float, user: int) -> None:
        self._busy += 1
        done = self.now + self._random.expovariate(1 / self.service)
        for began, ended in self.stalls:
            if began <= done < ended:
                done = ended
        self._at(done, "done", user, since)

    def _done(self, since: float, user: int) -> None:
        self._busy -= 1
        self._answer(since, user)
        if self._queue:
            self._serve(*self._queue.popleft())

    def _answer(self, since: float, user: int, failed: bool = False) -> None:
        second = self._seconds.setdefault(int(self.now), Second(at=int(self.now), name="turn"))
        second.answered += 1
        second.failed += failed
        latency = rounded((self.now - since) * 1000)
        second.latency_ms[latency] = second.latency_ms.get(latency, 0) + 1
        if self.think is not None:
            self._at(self.now + (self._random.expovariate(1 / self.think) if self.think else 0.0), "due", user)


def search(system: System, events: Events | None = None, **given: float) -> StepsToKnee:
    """Lets it find the knee of the system; says nothing about when it should end."""
    asked: dict[str, float] = {
        "users": 1000,
        "run_time": 1200,
        "step_users": 20,
        "step_seconds": 20,
        "knee_p95": 1000,
        "knee_error_rate": 0.01,
        **given,
    }
    steps = StepsToKnee(
        users=int(asked["users"]),
        run_time=asked["run_time"],
        step_users=int(asked["step_users"]),
        step_seconds=asked["step_seconds"],
        knee_p95=asked["knee_p95"],
        knee_error_rate=asked["knee_error_rate"],
        window=system.window,
        event=events or Events(),
        clock=lambda: 1_000_000 + system.now,
    )
    for at, (users, rate) in ticks(steps, asked["run_time"]):
        assert 1 <= users <= asked["users"]
        assert 1 <= rate <= FASTEST
        system.advance(at)
        system.set_users(users)
    return steps


def found(steps: StepsToKnee) -> tuple[float, Section]:
    section = steps.section()
    assert steps.knee is not None
    assert section is not None
    assert section.knee is not None
    assert (section.knee.rate, section.knee.users) == (steps.knee.seen.rate, steps.knee.users)
    return section.knee.rate, section


SEEDS = range(4)


def open_arrivals(seed: int, **given: object) -> System:
    """100 turns a second at most."""
    return System(servers=4, service=0.04, think=None, seed=seed, **given)  # type: ignore[arg-type]


def closed_loop(seed: int, think: float = 2.0) -> System:
    """100 turns a second at most, too."""
    return System(servers=4, service=0.04, think=think, seed=seed)


class TestTheKnee:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_open_arrivals_is_found_within_ten_percent(self, seed: int) -> None:
        system = open_arrivals(seed)

        rate, section = found(search(system))

        assert rate == pytest.approx(system.capacity, rel=0.1)
        assert section.text.count("The knee lies between") == 1

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("step_users", [7, 64, 150])
    def test_steps_of_any_size_lead_to_it(self, seed: int, step_users: int) -> None:
        system = open_arrivals(seed)
        assert found(search(system, step_users=step_users))[0] == pytest.approx(system.capacity, rel=0.1)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("knee_p95", [200.0, 500.0])
    def test_is_where_the_bound_is_and_not_only_where_nothing_more_goes(self, seed: int, knee_p95: float) -> None:
        # One server with exponential times (M/M/1): p95 = -ln(0.05) / (capacity - rate).
        system = System(servers=1, service=0.02, think=None, seed=seed)
        rate, _ = found(search(system, knee_p95=knee_p95, step_users=10, step_seconds=120, run_time=4000))
        assert rate == pytest.approx(system.capacity - 2.996 / knee_p95 * 1000, rel=0.1)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_people_who_wait_and_think_is_found_within_ten_percent(self, seed: int) -> None:
        system = closed_loop(seed)
        assert found(search(system, knee_p95=500))[0] == pytest.approx(system.capacity, rel=0.1)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("think", [0.0, 2.0])
    def test_of_a_closed_loop_is_found_where_no_bound_ever_breaks(self, seed: int, think: float) -> None:
        system = closed_loop(seed, think)

        rate, section = found(search(system, knee_p95=60_000, step_users=10 if think == 0 else 40))

        assert rate == pytest.approx(system.capacity, rel=0.1)
        assert "saturate the system" in section.text
        assert section.tables[0].rows[-1][-1] == "saturated: more users, no higher rate"

    @pytest.mark.parametrize("seed", SEEDS)
    def test_of_a_system_that_refuses_is_where_failures_begin(self, seed: int) -> None:
        system = open_arrivals(seed, places=100)

        steps = search(system, knee_p95=60_000)

        assert found(steps)[0] == pytest.approx(system.capacity, rel=0.1)
        assert any(step.problem.endswith(" % failed") for step in steps.steps)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_one_hiccup_is_gone_at_the_second_look(self, seed: int) -> None:
        system = open_arrivals(seed, stalls=[(31.0, 34.0)])

        steps = search(system)

        assert (steps.steps[1].users, steps.steps[1].verdict) == (40, "within bounds at the second look")
        assert steps.steps[2].users == 60
        assert found(steps)[0] == pytest.approx(system.capacity, rel=0.1)

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("step_users", [4, 20])
    def test_a_hiccup_whose_queue_outlasts_the_second_look_does_not_end_the_search(
        self, seed: int, step_users: int
    ) -> None:
        system = open_arrivals(seed)

        class Stalling(Events):
            def __call__(self, kind: EventKind, text: str, phase: PhaseName | None = None) -> None:
                if text == "step to 80 users" and text not in self.texts:
                    # Little of what it can do is left to clear the queue of these five seconds.
                    system.stalls.append((system.now + 12, system.now + 17))
                super().__call__(kind, text, phase)

        steps = search(system, Stalling(), step_users=step_users)

        at_80 = [step.problem for step in steps.steps if step.users == 80]
        assert at_80[0].startswith("p95")
        assert at_80[-1] == ""
        assert found(steps)[0] == pytest.approx(system.capacity, rel=0.1)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_is_found_with_the_short_steps_of_the_tour(self, seed: int) -> None:
        system = open_arrivals(seed, lag=2.0)
        rate, _ = found(search(system, run_time=90, step_users=25, step_seconds=6))
        assert rate == pytest.approx(system.capacity, rel=0.15)

    def test_is_not_judged_by_the_queue_that_a_step_too_far_has_left(self) -> None:
        system = open_arrivals(1)
        events = Events()

        steps = search(system, events, step_users=95)

        assert [step.users for step in steps.steps][:2] == [95, 190]
        after = steps.steps[2]
        assert events.texts[events.texts.index("step to 190 users") + 2].startswith("back to 47 users")
        assert after.at - steps.steps[1].at > 20 + 30  # the queue of 90 turns a second too many takes its time


def scripted(answers: dict[int, tuple[int, float]]) -> StepsToKnee:
    """Steps of 10 users on a system that answers so many a second in so many ms, by the number of users."""
    there = 0

    def window(seconds: float) -> Summary:
        rate, latency = answers[there]
        count = int(rate * seconds)
        return Summary.of([Second(at=0, name="turn", answered=count, latency_ms={latency: count})], seconds)

    steps = StepsToKnee(
        users=max(answers),
        run_time=600,
        step_users=10,
        step_seconds=10,
        knee_p95=1000,
        knee_error_rate=0,
        window=window,
        event=Events(),
    )
    for _, (users, _) in ticks(steps, 600):
        there = users
    return steps


class TestTheRateDecides:
    def test_the_knee_is_the_highest_rate_and_not_the_most_users(self) -> None:
        steps = scripted({10: (50, 20), 20: (60, 20), 30: (58, 20), 40: (55, 20)})
        assert steps.knee is not None
        assert (steps.knee.users, steps.knee.seen.rate) == (20, 60)

    def test_a_rate_that_does_not_grow_is_no_saturation_while_answers_are_as_quick(self) -> None:
        # So few come because the users wait for something else: another service, or the generator's own CPU.
        steps = scripted({10: (50, 20), 20: (50, 20), 30: (50, 21)})
        assert [step.saturated for step in steps.steps] == [False] * 3

    def test_slower_answers_are_no_saturation_while_the_rate_grows(self) -> None:
        steps = scripted({10: (50, 20), 20: (53, 40), 30: (80, 60)})
        assert [step.saturated for step in steps.steps] == [False] * 3

    def test_no_more_rate_and_slower_answers_are(self) -> None:
        steps = scripted({10: (50, 20), 20: (52, 40), 30: (52, 60)})
        assert [(step.users, step.saturated) for step in steps.steps] == [(10, False), (20, True)]

    def test_a_few_users_more_are_too_few_to_tell(self) -> None:
        # 300 users can bring 3 % more than 290: they are compared with 240.
        steps = scripted({users: (users, 20 + users) for users in range(10, 301, 10)})
        assert not any(step.saturated for step in steps.steps)


class TestBounds:
    def test_never_more_users_than_given_and_it_says_that_the_knee_is_beyond(self) -> None:
        steps = search(open_arrivals(0), users=50)

        rate, section = found(steps)

        assert [step.users for step in steps.steps] == [20, 40, 50]
        assert rate == pytest.approx(50, rel=0.1)
        assert section.text.endswith("The knee was not reached: 50 users keep within the bounds. Give more by --users.")

    def test_the_end_of_the_time_is_said_while_the_load_grows(self) -> None:
        steps = search(open_arrivals(0), run_time=70)

        assert [step.users for step in steps.steps] == [20, 40, 60]
        assert found(steps)[1].text.endswith(
            "The knee was not reached: --run-time ended at 60 users. Give more time, or larger steps by --step-users."
        )

    def test_the_end_of_the_time_is_said_while_it_comes_nearer(self) -> None:
        steps = search(open_arrivals(0), step_users=80, run_time=100)

        assert [step.users for step in steps.steps] == [80, 160]
        assert found(steps)[1].text.endswith(
            "The knee lies between 80 and 160 users: the time ended before more was known."
        )

    def test_a_time_that_ends_in_the_middle_of_a_second_look_says_so(self) -> None:
        steps = search(open_arrivals(0), step_users=80, run_time=45)
        assert [step.verdict.partition(",")[2] for step in steps.steps] == ["", " seen once"]
        assert "--run-time ended at 80 users" in found(steps)[1].text

    def test_a_time_that_ends_while_a_queue_clears_says_so(self) -> None:
        steps = search(open_arrivals(0), step_users=80, run_time=60)
        assert found(steps)[1].text.endswith(
            "The knee lies between 80 and 160 users: the time ended before more was known."
        )

    def test_it_has_ended_when_it_has_ended(self) -> None:
        steps = search(open_arrivals(0), run_time=70)
        section = steps.section()
        assert steps.tick(71) is None
        assert steps.section() == section

    def test_a_system_that_answers_nothing_has_no_knee(self) -> None:
        steps = search(open_arrivals(0, stalls=[(0, 10_000)]), step_users=4)

        section = steps.section()

        assert section is not None
        assert steps.knee is None
        assert {step.problem for step in steps.steps} == {"nothing was answered"}
        assert [step.users for step in steps.steps] == [4, 2, 1]
        assert section.text.endswith("There is no knee: a single user breaks the bounds.")
        assert [figure.name for figure in section.figures] == ["bounds", "fewest users that broke the bounds"]

    def test_a_run_too_short_for_one_step_is_one_line(self) -> None:
        with pytest.raises(LoadError) as raised:
            shape(Options(shape="steps"), 10, 1, 15, nothing_answered, Events())
        assert str(raised.value) == ("--run-time 15: too short for a step of --step-seconds 20; ten steps take 200 s")

    @pytest.mark.parametrize("step_seconds", [0.5, 1, 2, 4, 6, 20, 61.5])
    def test_a_step_of_any_length_looks_at_whole_seconds_after_the_load_has_settled(self, step_seconds: float) -> None:
        looks: list[float] = []

        def window(seconds: float) -> Summary:
            looks.append(seconds)
            return Summary.of([Second(at=0, name="turn", answered=1, latency_ms={1.0: 1})], seconds)

        steps = StepsToKnee(
            users=4,
            run_time=300,
            step_users=1,
            step_seconds=step_seconds,
            knee_p95=1000,
            knee_error_rate=0,
            window=window,
            event=Events(),
        )
        assert len(list(ticks(steps, 300))) >= 4

        assert all(look == int(look) for look in looks)
        assert all(1 <= look <= max(1, step_seconds * 0.6) for look in looks)


class TestWhatItReports:
    def test_each_step_each_break_and_the_end_are_marked(self) -> None:
        events = Events()
        steps = search(open_arrivals(2), events)

        begun = [text for text in events.texts if text.startswith("step to")]
        assert begun == [f"step to {step.users} users" for step in steps.steps]
        broke = [text for kind, text in events.seen if kind == "problem"]
        assert broke == [f"{step.users} users too many: {step.problem}" for step in steps.steps if step.problem]
        assert broke
        assert steps.knee is not None
        assert events.seen[-1] == (
            "phase",
            f"steps end: {steps.knee.seen.rate:.1f}/s with {steps.knee.users} users",
        )

    def test_the_section_has_the_knee_as_figures_and_a_row_for_each_step(self) -> None:
        steps = search(open_arrivals(2))

        rate, section = found(steps)

        figures = {figure.name: figure for figure in section.figures}
        assert steps.knee is not None
        assert figures["highest rate within bounds"].value == f"{rate:.1f}/s"
        assert figures["highest rate within bounds"].note == f"{steps.knee.users} users"
        assert figures["p95 at that rate"].value == f"{steps.knee.seen.percentile_ms(95):g} ms"
        assert figures["bounds"].value == "p95 1000 ms, 1 % failed"
        assert int(figures["fewest users that broke the bounds"].value) > steps.knee.users
        table = section.tables[0]
        assert table.columns == ["at", "users", "rate", "p50", "p95", "p99", "failed", "verdict"]
        assert [row[1] for row in table.rows] == [str(step.users) for step in steps.steps]
        assert section.started == 1_000_000
        assert section.ended >= 1_000_000 + steps.steps[-1].at - 2

    def test_a_search_that_is_stopped_says_so(self) -> None:
        system = open_arrivals(0)
        steps = StepsToKnee(
            users=100,
            run_time=300,
            step_users=5,
            step_seconds=20,
            knee_p95=1000,
            knee_error_rate=0.01,
            window=system.window,
            event=Events(),
        )
        assert steps.section() is None
        steps.tick(0.0)

        section = steps.section()

        assert section is not None
        assert section.text.endswith("The run ended before the search did.")
        assert section.tables[0].rows == []

    def test_options_reach_it(self) -> None:
        events = Events()
        options = Options(shape="steps", step_users=3, step_seconds=10, knee_p95=250, knee_error_rate=0.05)
        made = shape(options, 100, 1, 60, nothing_answered, events)

        assert next(ticks(made, 60))[1][0] == 3
        assert isinstance(made, StepsToKnee)
        section = made.section()
        assert section is not None
        assert section.figures[0].value == "p95 250 ms, 5 % failed"
        assert section.text.startswith("Every 10 s 3 users more")


def test_the_simulated_system_is_the_one_of_the_textbook() -> None:
    """What the tests above rest on: an M/M/1 queue at 60 % of its capacity waits 1 / (capacity - rate) in the mean."""
    system = System(servers=1, service=0.02, think=None, seed=7)
    system.set_users(30)
    system.advance(2000)
    seen = system.window(1900)

    mean = sum(latency * count for latency, count in seen.latency_ms.items()) / seen.answered

    assert seen.rate == pytest.approx(30, rel=0.03)
    assert mean == pytest.approx(1000 / (50 - 30), rel=0.15)


LOCUSTFILE = """
import json
import time

import gevent
from actor_load.conductor import Conductor
from actor_load.options import Options, add_arguments
from actor_load.record import Summary
from actor_load.shapes import shape
from locust import User, constant, events, task

seen = []
marked = []


class Nobody(User):
    wait_time = constant(0.1)

    @task
    def nothing(self):
        pass


def plan(environment):
    given = environment.parsed_options
    begun = time.monotonic()

    def watch():
        while True:
            seen.append((time.monotonic() - begun, environment.runner.user_count))
            gevent.sleep(0.1)

    environment.runner.greenlet.spawn(watch)
    return shape(
        Options.of(environment),
        given.num_users,
        given.spawn_rate,
        given.run_time,
        lambda seconds: Summary.of([], seconds),
        lambda kind, text, phase: marked.append(text),
    )


@events.init.add_listener
def on_init(environment, **_):
    environment.shape_class = Conductor(environment, lambda: plan(environment))


events.init_command_line_parser.add_listener(add_arguments)
events.quit.add_listener(lambda **_: print(json.dumps({"seen": seen, "marked": marked})))
"""


def test_locust_itself_follows_a_shape_and_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    command = [sys.executable, "-m", "locust", "-f", str(tmp_path / "locustfile.py"), "--headless", "--only-summary"]
    ended = subprocess.run(
        [*command, "--shape", "spike", "--spike-factor", "4", "-u", "8", "-t", "9"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    found = json.loads(ended.stdout.splitlines()[-1])

    assert found["marked"] == ["usual load, 2 users", "spike to 8 users", "back to 2 users"]
    loads = [there for (_, there), (_, after) in pairwise([*found["seen"], (0, -1)]) if there != after]
    assert [load for load in loads if load] == [2, 8, 2]
    assert 9 <= found["seen"][-1][0] <= 14  # the users that are left may finish what they do
