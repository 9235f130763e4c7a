"""Events as marks on a chart's time axis: numbered as in the list of events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from actor_load.record import Event, EventKind, Record
from actor_load.report.series import Span
from actor_load.words import elapsed

CLOSE: Final = 0.01
"""Events nearer than this part of the span share one mark: two rules on one another cannot be told apart."""

ROOM: Final = 0.025
"""What a label takes of a chart's width, about."""

KINDS: Final[list[EventKind]] = ["phase", "settled", "action", "problem"]
"""A shared mark is of the last of these that is in it."""


@dataclass(frozen=True)
class Mark:
    """One rule."""

    at: int
    """Milliseconds since the start of the run."""
    label: str
    """``3``, or ``3-5``."""
    kind: EventKind
    text: str
    """All of what happened."""


def numbered(record: Record) -> list[tuple[int, Event]]:
    """The events in the order of time, with the numbers that the charts show."""
    return list(enumerate(sorted(record.events, key=lambda event: event.at), start=1))


def marks(record: Record, span: Span) -> list[Mark]:
    """Those that lie in ``span``."""
    groups: list[list[tuple[int, Event]]] = []
    for number, event in numbered(record):
        if not span.started <= event.at <= span.ended:
            continue
        if groups and event.at - groups[-1][0][1].at < CLOSE * span.duration:
            groups[-1].append((number, event))
        else:
            groups.append([(number, event)])
    return [_mark(group, span) for group in groups]


def gravest_first(marks: Sequence[Mark]) -> list[Mark]:
    """Who has the first choice where there is no room for all; of one kind, the earlier."""
    return sorted(marks, key=lambda mark: -KINDS.index(mark.kind))


def labelled(marks: Sequence[Mark], span: Span) -> list[Mark]:
    """Those whose label is drawn: of two that are too near to each other for both, the graver one, or the earlier."""
    found: list[Mark] = []
    for mark in gravest_first(marks):
        if all(abs(mark.at - other.at) >= ROOM * span.duration * 1000 for other in found):
            found.append(mark)
    return sorted(found, key=lambda mark: mark.at)


def _mark(group: list[tuple[int, Event]], span: Span) -> Mark:
    first, last = group[0][0], group[-1][0]
    return Mark(
        at=round((group[0][1].at - span.origin) * 1000),
        label=str(first) if first == last else f"{first}-{last}",
        kind=max((event.kind for _, event in group), key=KINDS.index),
        text="; ".join(f"{number}: {elapsed(event.at - span.origin)} {event.text}" for number, event in group),
    )
