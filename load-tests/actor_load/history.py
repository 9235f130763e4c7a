"""What a long run keeps: of the last half hour every second, of what was before as much as a chart can show.

Seconds are added up, not thinned out: no request is lost, and no percentile changes. They are never added up across the
beginning of a phase, so that phases keep their own figures, too. Of the generator the busiest sample of each process
stays; of placement the last look, and every one before something changed.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import zip_longest
from math import ceil
from typing import Any, Final

from actor_load.phases import phases
from actor_load.record import GeneratorSample, PlacementSample, Record, Second

FINE_SECONDS: Final = 1800
"""So long everything is kept as it came: what a shape or a scenario looks back on."""

ROLL_SECONDS: Final = 300
"""How often what is older is added up."""

MOST_POINTS: Final = 600
"""Of a chart: more than a screen has room for. What is added up is no wider than a point of the whole run."""

WIDTHS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Of a chart's points: seconds that people count in."""

_TOGETHER: Final = (1, 5, 30, 60, 300)
"""Seconds that are taken together: each is a multiple of the one before."""


def point_width(at_least: float) -> int:
    """How wide a chart's points are, in seconds."""
    return next((width for width in WIDTHS if width >= at_least), ceil(at_least / WIDTHS[-1]) * WIDTHS[-1])


def roll_up(record: Record, now: float) -> None:
    """Takes together what is older than :data:`FINE_SECONDS`; lists stay the same objects."""
    points = point_width((now - record.started) / MOST_POINTS)
    width = max(width for width in _TOGETHER if points % width == 0)
    if width == 1:
        return
    old = _Old(int(now - FINE_SECONDS), int(record.started), width)
    begun = [int(phase.started) for phase in phases(record)]
    for seconds in (record.seconds, record.due):
        seconds[:] = _added_up(seconds, old, begun)
    record.generator[:] = _busiest(record.generator, old)
    record.placement[:] = _changes(record.placement, old)


class _Old:
    """What is taken together."""

    def __init__(self, before: int, origin: int, width: int) -> None:
        self.width = width
        # Up to a border, so that what is taken together is complete.
        self.before = origin + (before - origin) // width * width
        self._origin = origin

    def slot(self, at: float) -> int | None:
        """The number of the stretch that a time is in; ``None`` where it is not old."""
        return int(at - self._origin) // self.width if at < self.before else None


def _added_up(seconds: Iterable[Second], old: _Old, begun: list[int]) -> list[Second]:
    kept: list[Second] = []
    found: dict[tuple[int, int, str], Second] = {}
    for second in seconds:
        slot = old.slot(second.at)
        if slot is None:
            kept.append(second)
            continue
        together = found.setdefault((slot, bisect_right(begun, second.at), second.name), second)
        if together is not second:
            together.add(vars(second))
            together.at = min(together.at, second.at)
        together.width = old.width
    return [*found.values(), *kept]


def _busiest(samples: Iterable[GeneratorSample], old: _Old) -> list[GeneratorSample]:
    kept: list[GeneratorSample] = []
    found: dict[tuple[int, str], GeneratorSample] = {}
    for sample in samples:
        slot = old.slot(sample.at)
        if slot is None:
            kept.append(sample)
        elif sample.cpu_cores >= found.setdefault((slot, sample.process), sample).cpu_cores:
            found[slot, sample.process] = sample
    return [*sorted(found.values(), key=lambda sample: sample.at), *kept]


def _changes(samples: list[PlacementSample], old: _Old) -> list[PlacementSample]:
    return [
        sample
        for sample, following in zip_longest(samples, samples[1:])
        if following is None
        or (slot := old.slot(sample.at)) is None
        or slot != old.slot(following.at)
        or _state(sample) != _state(following)
    ]


def _state(sample: PlacementSample) -> Any:
    """What is not allowed to get lost."""
    pods = [(pod.name, pod.ready, pod.leaving, pod.placed, pod.restarts) for pod in sample.pods]
    return sample.version, [host.address for host in sample.hosts], pods, sample.problems
