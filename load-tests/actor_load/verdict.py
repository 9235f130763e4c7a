"""The verdict on a run: whether it answered at all, and kept within its thresholds.

All turns and calls of the run are judged, from its first second to its last; retries are no requests of their own
(:data:`actor_load.record.RETRY_PREFIX`). The rate, too, is over the whole length of the run or the phase: over the time
between the first and the last answer, a system that hangs from the second minute on would have done well.
"""

from collections.abc import Iterable, Iterator

from actor_load.record import TURN_PREFIX, Check, Record
from actor_load.subjects import summary
from actor_load.thresholds import Threshold


def judge(thresholds: Iterable[Threshold], record: Record) -> list[Check]:
    """A check that fails where nothing was answered without failure, or where turns were sent and none was; and one for
    each threshold."""
    return [*_answered(record), *(one.check(summary(record, one.what, one.phase)) for one in thresholds)]


def _answered(record: Record) -> Iterator[Check]:
    for what, seen in (("requests", record.summary()), ("turns", record.summary(prefix=TURN_PREFIX))):
        if seen.answered == seen.failed and (what == "requests" or seen.answered):
            detail = f"none of {seen.answered:,} {what} was answered without failure"
            yield Check(name=f"{what} answered", passed=False, detail=detail)
            return
