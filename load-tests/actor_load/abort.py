"""Ends a run early whose thresholds are broken for good: the rest of it would only cost time.

A share or a percentile may be broken for a moment and hold at the end. So a threshold has to be broken for some seconds
on end. It is judged by what it will be judged by at the end, as far as that is known: the run so far, or its phases.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from actor_load.phases import Phase
from actor_load.record import TURN_PREFIX, Check, Second, Summary
from actor_load.thresholds import Threshold


class Watch:
    """The thresholds of one run that may end it."""

    def __init__(self, thresholds: Iterable[Threshold], grace: float, broken: Callable[[Check], object]) -> None:
        """``broken`` is called once, for the first threshold that was broken for ``grace`` seconds on end."""
        self._seen: dict[Threshold, dict[int, Second]] = {one: {} for one in thresholds if one.abort}
        self._broken_since: dict[Threshold, float] = {}
        self._grace = grace
        self._broken = broken
        self._over = False

    def add(self, item: Mapping[str, Any], phases: list[Phase], *, due: bool) -> None:
        """Counts a second as a process tells it; turns come twice, when they were answered and when they were due."""
        turns = item["name"].startswith(TURN_PREFIX)
        for threshold, by_phase in self._seen.items():
            if threshold.counts(item["name"]) and due == (turns and threshold.phase is not None):
                last = len(phases) - 1
                number = next((index for index, phase in enumerate(phases) if item["at"] < int(phase.ended)), last)
                by_phase.setdefault(number, Second(at=0, name=threshold.what)).add(item)

    def look(self, started: float, now: float, phases: list[Phase]) -> None:
        """Judges all of them by what was counted until ``now``."""
        for threshold, by_phase in self._seen.items():
            asked = [number for number, one in enumerate(phases) if threshold.phase in {None, one.name}]
            stretches = [(max(phases[number].started, started), min(phases[number].ended, now)) for number in asked]
            seen = Summary.of(
                (by_phase[number] for number in asked if number in by_phase),
                sum(max(ended - began, 0) for began, ended in stretches),
            )
            check = threshold.check(seen)
            if check.passed or not seen.answered:
                self._broken_since.pop(threshold, None)
            elif now - self._broken_since.setdefault(threshold, now) >= self._grace and not self._over:
                self._over = True
                self._broken(check)
