"""What a run is held to, and the line that says so."""

import pytest
from actor_load.options import Options
from actor_load.record import RETRY_PREFIX, Check, Record, Second
from actor_load.thresholds import judge

ALL = {"max_p95": 300, "max_p99": 500, "max_error_rate": 0.01, "min_rate": 5}


def record(*seconds: Second, length: float = 100) -> Record:
    return Record(title="a run", started=1000, ended=1000 + length, seconds=list(seconds))


def second(at: int = 1000, name: str = "turn", failed: int = 0, latency_ms: dict[float, int] | None = None) -> Second:
    latency_ms = latency_ms or {}
    return Second(at=at, name=name, answered=sum(latency_ms.values()), failed=failed, latency_ms=latency_ms)


def only(checks: list[Check]) -> Check:
    assert len(checks) == 1
    return checks[0]


@pytest.mark.parametrize(
    ("options", "passed", "detail"),
    [
        ({"max_p95": 300}, False, "p95 412 ms is above --max-p95 300 ms"),
        ({"max_p95": 412}, True, "p95 412 ms keeps within 412 ms"),
        ({"max_p95": 411.999}, False, "p95 412 ms is above --max-p95 411.999 ms"),
        ({"max_p95": 2500.5}, True, "p95 412 ms keeps within 2500.5 ms"),
        ({"max_p99": 1000}, False, "p99 1230 ms is above --max-p99 1000 ms"),
        ({"max_p99": 2000}, True, "p99 1230 ms keeps within 2000 ms"),
        ({"max_error_rate": 0.01}, False, "error rate 2 % is above --max-error-rate 1 %"),
        ({"max_error_rate": 0.02}, True, "error rate 2 % keeps within 2 %"),
        ({"max_error_rate": 0.0}, False, "error rate 2 % is above --max-error-rate 0 %"),
        ({"max_error_rate": 0.019999}, False, "error rate 2 % is above --max-error-rate 1.9999 %"),
        ({"min_rate": 2}, False, "rate 1.96/s is below --min-rate 2/s"),
        ({"min_rate": 1.96}, True, "rate 1.96/s reaches 1.96/s"),
        ({"min_rate": 0}, True, "rate 1.96/s reaches 0/s"),
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
        ("p95", True),
        ("p99", True),
        ("error rate", True),
        ("rate", True),
    ]


@pytest.mark.parametrize("length", [0, 100])
def test_a_run_without_answers_fails_all_that_is_asked(length: float) -> None:
    checks = judge(Options(**ALL), record(length=length))

    assert [(check.passed, check.detail) for check in checks] == [
        (False, "none of 0 requests was answered without failure"),
        (False, "p95 is unknown, nothing was answered: --max-p95 300 ms is not kept"),
        (False, "p99 is unknown, nothing was answered: --max-p99 500 ms is not kept"),
        (False, "error rate is unknown, nothing was answered: --max-error-rate 1 % is not kept"),
        (False, "rate is unknown, nothing was answered: --min-rate 5/s is not kept"),
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
        "p95 100 ms keeps within 300 ms",
        "error rate 0 % keeps within 0 %",
        "rate 10/s reaches 10/s",
    ]


def test_turns_and_actor_calls_count_alike() -> None:
    run = record(second(name="turn (due)", latency_ms={100.0: 90}), second(name="BeginTurn", latency_ms={900.0: 10}))
    assert only(judge(Options(max_p95=300), run)).detail == "p95 900 ms is above --max-p95 300 ms"


def test_a_system_that_hangs_from_the_middle_on_has_half_the_rate() -> None:
    run = record(*(second(at, latency_ms={10.0: 20}) for at in range(1000, 1050)))
    assert only(judge(Options(min_rate=15), run)).detail == "rate 10/s is below --min-rate 15/s"


def test_failed_answers_are_no_rate() -> None:
    run = record(second(latency_ms={10.0: 1000}, failed=500))
    assert only(judge(Options(min_rate=10), run)).detail == "rate 5/s is below --min-rate 10/s"


def test_the_first_and_the_last_second_of_the_run_count() -> None:
    run = record(second(1000, latency_ms={900.0: 1}), second(1100, latency_ms={900.0: 1}))
    assert only(judge(Options(max_p95=300), run)).detail == "p95 900 ms is above --max-p95 300 ms"
    assert only(judge(Options(min_rate=0.02), run)).passed
