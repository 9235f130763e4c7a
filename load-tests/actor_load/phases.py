"""The phases of a run: every moment belongs to one, so that no overload hides in the figures of what is usual.

A phase lasts until the next one begins. A change of the cluster is a phase of its own, from the action until shortly
after all is settled; then the one before goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args

from actor_load.record import Event, PhaseName, Record

NAMES: Final[tuple[PhaseName, ...]] = get_args(PhaseName)

TAIL_SECONDS: Final = 5.0
"""What a change costs shows a little longer than it lasts."""

OF_SHAPES: Final[Mapping[str, tuple[PhaseName, ...]]] = {
    "constant": ("growth", "level"),
    "soak": ("growth", "level"),
    "ramp": ("ramp", "plateau"),
    "spike": ("usual", "spike", "back"),
    "steps": ("step", "overload"),
}
OF_SCENARIOS: Final[tuple[PhaseName, ...]] = ("load", "change", "step", "overload")


@dataclass(frozen=True)
class Phase:
    """A stretch of a run: ``[started, ended)``, Unix times."""

    name: PhaseName | None
    """``None`` before the first."""
    started: float
    ended: float

    def holds(self, at: int) -> bool:
        """Whether the second ``at`` belongs to it: that in which a phase begins does."""
        return int(self.started) <= at < int(self.ended)


def phases(record: Record) -> list[Phase]:
    """All of them, in the order of time; the last one has what was answered after the run, too."""
    return between(record.events, record.ended)


def between(events: Iterable[Event], ended: float) -> list[Phase]:
    """The phases that ``events`` tell of, until ``ended``.

    A run that ends within a change, and one that ends before the tail of its last change, are all change to the end.
    """
    found = [Phase(None, 0, ended)]
    before: PhaseName | None = None
    for event in sorted(events, key=lambda event: event.at):
        now = found[-1]
        if event.kind == "action" and event.phase == "change":
            if now.name != "change":
                before = now.name
            found += _next(found, "change", event.at, ended)
        elif event.kind == "settled" and now.name == "change":
            found += _next(found, before, event.at + TAIL_SECONDS, ended)
        elif event.kind == "phase" and event.phase is not None:
            found += _next(found, event.phase, event.at, ended)
        elif event.phase is not None:
            found[-1] = replace(now, name=event.phase)
    return [*found[:-1], replace(found[-1], ended=max(ended, found[-1].started) + 1)]


def _next(found: list[Phase], name: PhaseName | None, at: float, ended: float) -> list[Phase]:
    found[-1] = replace(found[-1], ended=at)
    return [Phase(name, at, ended)]
