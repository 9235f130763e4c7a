"""What a run is held to, and the line that says so."""

import pytest
from actor_load.abort import Watch
from actor_load.errors import LoadError
from actor_load.options import Options
from actor_load.phases import between
from actor_load.record import RETRY_PREFIX, Check, Event, Record, Second
from actor_load.thresholds import parse
from actor_load.verdict import judge as verdict

ALL = {"max_p95": 300, "max_p99": 500, "max_error_rate": 0.01, "min_rate": 5}


def record(*seconds: Second, length: float = 100) -> Record:
    return Record(title="a run", started=1000, ended=1000 + length, seconds=list(seconds))


def second(at: int = 1000, name: str = "turn", failed: int = 0, latency_ms: dict[float, int] | None = None) -> Second:
    latency_ms = latency_ms or {}
    return Second(at=at, name=name, answered=sum(latency_ms.values()), failed=failed, latency_ms=latency_ms)


def judge(options: Options, record: Record) -> list[Check]:
    return verdict(options.thresholds, record)


def only(checks: list[Check]) -> Check:
    assert len(checks) == 1
    return checks[0]


@pytest.mark.parametrize(
    ("options", "passed", "detail"),
    [
        ({"max_p95": 300}, False, "p95 of all requests is 412 ms: --max-p95 300 is broken"),
        ({"max_p95": 412}, True, "p95 of all requests is 412 ms: --max-p95 412 holds"),
        ({"max_p95": 411.999}, False, "p95 of all requests is 412 ms: --max-p95 411.999 is broken"),
        ({"max_p95": 2500.5}, True, "p95 of all requests is 412 ms: --max-p95 2500.5 holds"),
        ({"max_p99": 1000}, False, "p99 of all requests is 1230 ms: --max-p99 1000 is broken"),
        ({"max_p99": 2000}, True, "p99 of all requests is 1230 ms: --max-p99 2000 holds"),
        ({"max_error_rate": 0.01}, False, "failed of all requests is 2 %: --max-error-rate 0.01 is broken"),
        ({"max_error_rate": 0.02}, True, "failed of all requests is 2 %: --max-error-rate 0.02 holds"),
        ({"max_error_rate": 0.0}, False, "failed of all requests is 2 %: --max-error-rate 0 is broken"),
        ({"max_error_rate": 0.019999}, False, "failed of all requests is 2 %: --max-error-rate 0.019999 is broken"),
        ({"min_rate": 2}, False, "rate of all requests is 1.96/s: --min-rate 2 is broken"),
        ({"min_rate": 1.96}, True, "rate of all requests is 1.96/s: --min-rate 1.96 holds"),
        ({"min_rate": 0}, True, "rate of all requests is 1.96/s: --min-rate 0 holds"),
    ],
)
def test_each_threshold_says_what_was_measured_against_what(
    options: dict[str, float], passed: bool, detail: str
) -> None:
    # 200 answers in 100 s: 4 of them failed, 19 took 412 ms, 3 took 1230 ms.
    run = record(second(latency_ms={100.0: 178, 412.0: 19, 1230.0: 3}, failed=4))

    check = only(judge(Options(**options), run))

    assert (check.passed, check.detail) == (passed, detail)
    assert check.detail.startswith(check.name)


def test_what_is_not_asked_is_not_judged() -> None:
    assert judge(Options(), record(second(latency_ms={10_000.0: 2}, failed=1))) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([], "none of 0 requests was answered without failure"),
        ([second(latency_ms={10.0: 3}, failed=3)], "none of 3 requests was answered without failure"),
        (
            [second(latency_ms={10.0: 3}, failed=3), second(name="BeginTurn", latency_ms={10.0: 3})],
            "none of 3 turns was answered without failure",
        ),
    ],
)
def test_a_run_without_one_answered_turn_has_failed_whatever_was_asked(seconds: list[Second], said: str) -> None:
    check = only(judge(Options(), record(*seconds)))
    assert (check.passed, check.detail) == (False, said)


def test_calls_of_actors_alone_are_a_run() -> None:
    assert judge(Options(), record(second(name="BeginTurn", latency_ms={10.0: 3}))) == []


def test_what_failed_at_once_makes_no_run_quick() -> None:
    run = record(Second(at=1000, name="turn", answered=100, failed=95, latency_ms={900.0: 5}, failed_ms={1.0: 95}))
    assert not only(judge(Options(max_p95=300), run)).passed


def test_all_that_is_asked_is_judged_in_one_order() -> None:
    checks = judge(Options(**ALL), record(second(latency_ms={1.0: 1000})))
    assert [(check.name, check.passed) for check in checks] == [
        ("p95 of all requests", True),
        ("p99 of all requests", True),
        ("failed of all requests", True),
        ("rate of all requests", True),
    ]


@pytest.mark.parametrize("length", [0, 100])
def test_a_run_without_answers_fails_all_that_is_asked(length: float) -> None:
    checks = judge(Options(**ALL), record(length=length))

    assert [(check.passed, check.detail) for check in checks] == [
        (False, "none of 0 requests was answered without failure"),
        (False, "p95 of all requests is unknown, none was answered: --max-p95 300 is broken"),
        (False, "p99 of all requests is unknown, none was answered: --max-p99 500 is broken"),
        (False, "failed of all requests is unknown, none was answered: --max-error-rate 0.01 is broken"),
        (False, "rate of all requests is unknown, none was answered: --min-rate 5 is broken"),
    ]


def test_a_run_of_retries_alone_has_answered_nothing() -> None:
    checks = judge(Options(**ALL), record(second(name=f"{RETRY_PREFIX} (turn)", latency_ms={1.0: 1000})))
    assert not any(check.passed for check in checks)


def test_retries_are_no_requests_of_their_own() -> None:
    run = record(
        second(latency_ms={100.0: 1000}),
        second(name=f"{RETRY_PREFIX} (turn)", latency_ms={9000.0: 1000}, failed=1000),
    )

    checks = judge(Options(max_p95=300, max_error_rate=0, min_rate=10), run)

    assert [check.detail for check in checks] == [
        "p95 of all requests is 100 ms: --max-p95 300 holds",
        "failed of all requests is 0 %: --max-error-rate 0 holds",
        "rate of all requests is 10/s: --min-rate 10 holds",
    ]


def test_turns_and_actor_calls_count_alike() -> None:
    run = record(second(name="turn (due)", latency_ms={100.0: 90}), second(name="BeginTurn", latency_ms={900.0: 10}))
    assert only(judge(Options(max_p95=300), run)).detail == "p95 of all requests is 900 ms: --max-p95 300 is broken"


def test_a_system_that_hangs_from_the_middle_on_has_half_the_rate() -> None:
    run = record(*(second(at, latency_ms={10.0: 20}) for at in range(1000, 1050)))
    assert only(judge(Options(min_rate=15), run)).detail == "rate of all requests is 10/s: --min-rate 15 is broken"


def test_failed_answers_are_no_rate() -> None:
    run = record(second(latency_ms={10.0: 1000}, failed=500))
    assert only(judge(Options(min_rate=10), run)).detail == "rate of all requests is 5/s: --min-rate 10 is broken"


def test_the_first_and_the_last_second_of_the_run_count() -> None:
    run = record(second(1000, latency_ms={900.0: 1}), second(1100, latency_ms={900.0: 1}))
    assert only(judge(Options(max_p95=300), run)).detail == "p95 of all requests is 900 ms: --max-p95 300 is broken"
    assert only(judge(Options(min_rate=0.02), run)).passed


def details(text: str, run: Record) -> list[str]:
    return [check.detail for check in verdict(parse(text), run)]


def test_a_threshold_is_of_turns_of_calls_of_retries_or_of_one_name() -> None:
    run = record(
        second(name="turn", latency_ms={100.0: 50}),
        second(name="turn (long)", latency_ms={200.0: 50}),
        second(name="BeginTurn", latency_ms={900.0: 100}, failed=10),
        second(name=f"{RETRY_PREFIX} after 503", latency_ms={1.0: 5}),
    )
    asked = "turn:max<=200ms call:p50<1s, turn (long):p50>=0.3s call:failed<10% retry:rate<1/s BeginTurn:rate>0.9"
    assert details(asked, run) == [
        "max of turns is 200 ms: turn:max<=200ms holds",
        "p50 of actor calls is 900 ms: call:p50<1s holds",
        "p50 of turn (long) is 200 ms: turn (long):p50>=0.3s is broken",
        "failed of actor calls is 10 %: call:failed<10% is broken",
        "rate of retries is 0.05/s: retry:rate<1/s holds",
        "rate of BeginTurn is 0.9/s: BeginTurn:rate>0.9 is broken",
    ]


@pytest.mark.parametrize(("percent", "milliseconds"), [("99.8", 10), ("99.9", 500)])
def test_percentiles_may_have_a_fraction(percent: str, milliseconds: int) -> None:
    run = record(second(latency_ms={10.0: 9980, 500.0: 20}))
    assert details(f"turn:p{percent}<1000", run) == [
        f"p{percent} of turns is {milliseconds} ms: turn:p{percent}<1000 holds"
    ]


def phased(*, due: list[Second], seconds: list[Second]) -> Record:
    run = record(*seconds)
    run.due = due
    run.events = [
        Event(at=1000.5, kind="phase", text="step to 5 users", phase="step"),
        Event(at=1020.5, kind="phase", text="step to 10 users", phase="step"),
        Event(at=1030, kind="problem", text="too many", phase="overload"),
        Event(at=1040.5, kind="phase", text="1,000 actors are visited"),
        Event(at=1060.5, kind="action", text="scale 1 -> 3", phase="change"),
        Event(at=1070.5, kind="settled", text="the actors live on 3 pods"),
    ]
    return run


def test_a_turn_belongs_to_the_phase_in_which_it_was_due_and_a_call_to_that_in_which_it_was_answered() -> None:
    run = phased(
        due=[second(1010, latency_ms={100.0: 20}), second(1025, "turn (due)", latency_ms={9000.0: 10})],
        seconds=[
            second(1010, latency_ms={100.0: 20}),
            second(1077, "turn (due)", latency_ms={9000.0: 10}),
            second(1061, name="BeginTurn", latency_ms={5.0: 4}),
            second(1090, name="BeginTurn", latency_ms={7.0: 1}),
        ],
    )
    assert details(
        "turn@step:p99<1s, turn@overload:p50<1s, turn (due)@overload:p50<1s, call@change:max<6, all@step:rate>=1/s", run
    ) == [
        "p99 of turns in step is 100 ms: turn@step:p99<1s holds",
        "p50 of turns in overload is 9000 ms: turn@overload:p50<1s is broken",
        "p50 of turn (due) in overload is 9000 ms: turn (due)@overload:p50<1s is broken",
        "max of actor calls in change is 5 ms: call@change:max<6 holds",
        "rate of all requests in step is 1/s: all@step:rate>=1/s holds",
    ]


def test_every_moment_belongs_to_one_phase_and_a_change_gives_back_to_the_one_before() -> None:
    found = between(phased(due=[], seconds=[]).events, 1100)
    assert [(phase.name, phase.started) for phase in found] == [
        (None, 0),
        ("step", 1000.5),
        ("overload", 1020.5),
        ("change", 1060.5),
        ("overload", 1075.5),
    ]
    assert all(sum(phase.holds(at) for phase in found) == 1 for at in range(990, 1101))


def test_a_phase_that_did_not_come_breaks_what_is_asked_of_it() -> None:
    run = phased(due=[], seconds=[second(latency_ms={1.0: 10})])
    assert details("turn@spike:p95<300", run) == [
        "p95 of turns in spike is unknown, none was answered: turn@spike:p95<300 is broken"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("turn", "'turn' is no threshold: write it as turn:p95<300"),
        ("turn:p95<300,turn p99<1", "'turn p99<1' is no threshold"),
        ("turn:p95<fast", "'turn:p95<fast' is no threshold"),
        ("turn:p95=300", "'turn:p95=300' is no threshold"),
        ("turn:p95<300!stop", "'turn:p95<300!stop' is no threshold"),
        ("turn:mean<3", "'turn:mean<3' has no metric mean: p50, p95"),
        ("turn:p100<3", "'turn:p100<3' has no metric p100: p50, p95"),
        ("turn@spyke:p95<3", "'turn@spyke:p95<3' has no phase 'spyke': it is one of growth, level"),
        ("turn:failed<3", "'turn:failed<3' must have a share in %, as failed<1%"),
        ("turn:p95<3%", "'turn:p95<3%' must have a time, as 300, 300ms or 2s"),
        ("turn:rate>3ms", "'turn:rate>3ms' must have a number a second, as rate>50"),
    ],
)
def test_what_is_no_threshold_is_named_with_the_mend(text: str, said: str) -> None:
    with pytest.raises(LoadError) as raised:
        Options.parse({"threshold": text})
    assert str(raised.value).startswith(f"--threshold {text}: {said}")


@pytest.mark.parametrize(
    ("load", "decided"), [({"shape": "ramp"}, "--shape ramp"), ({"scenario": "scale"}, "--scenario scale")]
)
def test_a_phase_that_can_not_come_is_refused_with_those_that_do(load: dict[str, str], decided: str) -> None:
    with pytest.raises(LoadError, match=f"--threshold turn@spike:p95<3: {decided} has the phases (ramp|load)"):
        Options.parse({"threshold": "turn@spike:p95<3", **load})
    assert Options.parse({"threshold": "turn@spike:p95<3", "shape": "spike"}).thresholds


class TestAbort:
    """A run that begins at 1000; what is counted comes second by second."""

    EVENTS = (
        Event(at=1000, kind="phase", text="usual", phase="usual"),
        Event(at=1010, kind="phase", text="spike", phase="spike"),
    )

    def aborted(self, text: str, latencies: dict[int, float], until: int = 1040) -> list[tuple[int, str]]:
        """When, and why; ``latencies`` of each second's one turn, by when it was due and answered."""
        found: list[tuple[int, str]] = []
        now = 1000
        watch = Watch(parse(text), 5, lambda check: found.append((now, check.detail)))
        for now in range(1000, until):
            phases = between([event for event in self.EVENTS if event.at <= now], now)
            if now in latencies:
                item = vars(second(now, latency_ms={latencies[now]: 1}))
                watch.add(item, phases, due=False)
                watch.add(item, phases, due=True)
            watch.look(1000, now, phases)
        return found

    def test_what_is_broken_for_so_long_on_end_ends_the_run_once(self) -> None:
        slow = dict.fromkeys(range(1003, 1040), 900.0)
        assert self.aborted("turn:p95<300!abort", slow) == [
            (1008, "p95 of turns is 900 ms: turn:p95<300!abort is broken")
        ]

    def test_what_is_broken_for_a_moment_does_not(self) -> None:
        latencies = {1000: 900.0} | dict.fromkeys(range(1001, 1040), 1.0)
        assert self.aborted("turn:p50<300!abort", latencies) == []

    def test_without_abort_nothing_does(self) -> None:
        assert self.aborted("turn:p50<300", dict.fromkeys(range(1000, 1040), 900.0)) == []

    def test_a_phase_is_judged_by_itself(self) -> None:
        latencies = dict.fromkeys(range(1000, 1010), 900.0) | dict.fromkeys(range(1010, 1040), 1.0)
        assert self.aborted("turn@spike:max<300!abort", latencies) == []
        assert [at for at, _ in self.aborted("turn@usual:max<300!abort", latencies)] == [1005]

    def test_one_name_in_a_phase_is_judged_by_when_its_turns_were_due(self) -> None:
        found: list[str] = []
        watch = Watch(parse("turn (due)@spike:p95<300!abort"), 5, lambda check: found.append(check.detail))
        phases = between(self.EVENTS, 1040)
        watch.add(vars(second(1020, "turn (due)", latency_ms={1.0: 9})), phases, due=False)
        watch.add(vars(second(1012, "turn (due)", latency_ms={900.0: 9})), phases, due=True)
        for now in range(1020, 1040):
            watch.look(1000, now, phases)
        assert found == ["p95 of turn (due) in spike is 900 ms: turn (due)@spike:p95<300!abort is broken"]

    def test_a_rate_is_of_the_time_so_far(self) -> None:
        latencies = dict.fromkeys(range(1000, 1010), 1.0)
        assert self.aborted("turn:rate>=0.5!abort", latencies) == [
            (1026, "rate of turns is 0.38/s: turn:rate>=0.5!abort is broken")
        ]
