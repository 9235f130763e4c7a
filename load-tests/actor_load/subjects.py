"""What figures and thresholds are of: turns, actor calls, or one request by its name; in the run, or in a phase.

A turn belongs to the phase in which it was due, however late it is answered; any other request to that in which it was
answered.
"""

from collections.abc import Iterable
from typing import Final

from actor_load.phases import NAMES, phases
from actor_load.record import RETRY_PREFIX, TURN_PREFIX, PhaseName, Record, Second, Summary

ALL, TURN, CALL, RETRY = "all", "turn", "call", "retry"
GROUPS: Final = {ALL: "all requests", TURN: "turns", CALL: "actor calls", RETRY: "retries"}
"""As thresholds name them, beside the name of a request in Locust's table -> as the report calls them."""


def of(what: str) -> str:
    """In words."""
    return GROUPS.get(what, what)


def belongs(name: str, what: str) -> bool:
    """Whether requests of the name are among ``what``: a key of :data:`GROUPS`, or a name."""
    is_turn, is_retry = name.startswith(TURN_PREFIX), name.startswith(RETRY_PREFIX)
    groups = {ALL: not is_retry, TURN: is_turn, CALL: not (is_turn or is_retry), RETRY: is_retry}
    return groups.get(what, name == what)


def summary(record: Record, what: str, phase: PhaseName | None = None) -> Summary:
    """What was seen of ``what`` in the whole run, or in all phases of the name together."""
    if phase is None:
        return Summary.of(
            (second for second in record.seconds if belongs(second.name, what)), record.ended - record.started
        )
    stretches = [one for one in phases(record) if one.name == phase]
    duration = sum(min(one.ended, record.ended) - one.started for one in stretches)
    return Summary.of(
        (one for one in _by_phase(record, what) if any(stretch.holds(one.at) for stretch in stretches)), duration
    )


def _by_phase(record: Record, what: str) -> Iterable[Second]:
    yield from (one for one in record.due if belongs(one.name, what))
    yield from (one for one in record.seconds if belongs(one.name, what) and not one.name.startswith(TURN_PREFIX))


def present(record: Record) -> list[str]:
    """Turns, actor calls or both, as far as the run has any; turns where it has neither."""
    return [what for what in (TURN, CALL) if any(belongs(one.name, what) for one in record.seconds)] or [TURN]


def phases_of(record: Record) -> list[PhaseName]:
    """The phases that the run had, each once."""
    had = {phase.name for phase in phases(record)}
    return [name for name in NAMES if name in had]
