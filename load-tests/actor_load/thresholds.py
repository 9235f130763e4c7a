"""Thresholds: whether a run kept within what was asked of it. One in which nothing, or no turn, was answered without
failure has failed, whatever was asked.

They judge all turns and calls of the run from its first second to its last; retries are no requests of their own
(:data:`actor_load.record.RETRY_PREFIX`). The rate, too, is over the whole length of the run, until its last user has
left: over the time between the first and the last answer, a system that hangs from the second minute on would have
done well.
"""

from collections.abc import Iterator

from actor_load.options import Options
from actor_load.record import TURN_PREFIX, Check, Record


def judge(options: Options, record: Record) -> list[Check]:
    """A check that fails where nothing was answered without failure, or where turns were sent and none was; and one for
    each threshold that is set: ``max_p95``, ``max_p99`` (ms, of those that did not fail), ``max_error_rate`` (0 to 1),
    ``min_rate`` (requests answered without failure in a second). What is exactly at a threshold keeps within it. Where
    nothing was answered, every one fails."""
    return [*_answered(record), *_checks(options, record)]


def _answered(record: Record) -> Iterator[Check]:
    for what, seen in (("requests", record.summary()), ("turns", record.summary(prefix=TURN_PREFIX))):
        if seen.answered == seen.failed and (what == "requests" or seen.answered):
            detail = f"none of {seen.answered:,} {what} was answered without failure"
            yield Check(name=f"{what} answered", passed=False, detail=detail)
            return


def _checks(options: Options, record: Record) -> Iterator[Check]:
    seen = record.summary()
    seconds = record.ended - record.started
    for percent, bound in ((95, options.max_p95), (99, options.max_p99)):
        if bound is not None:
            yield _at_most(f"p{percent}", seen.percentile_ms(percent), bound, " ms")
    if options.max_error_rate is not None:
        failed = seen.error_rate * 100 if seen.answered else None
        yield _at_most("error rate", failed, options.max_error_rate * 100, " %")
    if options.min_rate is not None:
        rate = (seen.answered - seen.failed) / seconds if seen.answered and seconds > 0 else None
        yield _at_least("rate", rate, options.min_rate, "/s")


def _at_most(name: str, measured: float | None, bound: float, unit: str) -> Check:
    option = "--max-" + name.replace(" ", "-")
    if measured is None:
        return _nothing(name, f"{option} {bound:g}{unit}")
    value, limit = _apart(measured, bound)
    if measured > bound:
        return Check(name=name, passed=False, detail=f"{name} {value}{unit} is above {option} {limit}{unit}")
    return Check(name=name, passed=True, detail=f"{name} {value}{unit} keeps within {limit}{unit}")


def _at_least(name: str, measured: float | None, bound: float, unit: str) -> Check:
    option = "--min-" + name
    if measured is None:
        return _nothing(name, f"{option} {bound:g}{unit}")
    value, limit = _apart(measured, bound)
    if measured < bound:
        return Check(name=name, passed=False, detail=f"{name} {value}{unit} is below {option} {limit}{unit}")
    return Check(name=name, passed=True, detail=f"{name} {value}{unit} reaches {limit}{unit}")


def _nothing(name: str, asked: str) -> Check:
    return Check(name=name, passed=False, detail=f"{name} is unknown, nothing was answered: {asked} is not kept")


def _apart(measured: float, bound: float) -> tuple[str, str]:
    """Both as text, with as many digits as tell one from the other: "300 ms is above 300 ms" helps nobody."""
    value, limit = "", ""
    for digits in range(2, 17):
        value, limit = (f"{number:.{digits}f}".rstrip("0").rstrip(".") for number in (measured, bound))
        if value != limit or measured == bound:
            break
    return value, limit
