"""How many turns this process takes on: as many as it keeps up with.

A turn that waits for its model costs nothing, so a fixed number fits no machine and no model. What tells is the event
loop: where more turns want to run than the CPU can, a timer fires late. So the limit falls, in proportion, while timers
are late, and rises again while they are not. Whoever is above it is refused at once and cheaply; those who are in are
answered in time, and so are the probes of sidecar and kubelet. Who stands in line behind another message of the same
user takes no CPU, so only the fixed number bounds those.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final, NoReturn

LEAST: Final = 48
"""Turns that are taken on however late the timers are: a burst is no overload."""
TICK_SECONDS: Final = 0.05
SMOOTH: Final = 0.2
"""The share of a tick in the average: what a quarter of a second says."""
STEP_SECONDS: Final = 0.25
"""Between two changes of the limit, so that the effect of one is seen before the next."""
FALL: Final = 0.85
FALL_FAST: Final = 0.5
"""Where timers are several times as late as they may be: what came in one second would take many."""
FAR_TOO_LATE: Final = 4
RISE: Final = 1.1
BEHIND_SECONDS: Final = 0.2
"""How late a timer may be that has not fired yet: a burst is over before an average tells of it."""
TELL_SECONDS: Final = 1.0
"""Between two log lines about refused messages: a line for each would cost more than refusing it."""

_log = logging.getLogger(__name__)


class Admission:
    """The limit on open turns."""

    def __init__(self, most: int, late_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``most`` are taken on at best; timers may be ``late_seconds`` late."""
        self._most = most
        self._least = min(LEAST, most)
        self._late_seconds = late_seconds
        self._clock = clock
        self._due = math.inf
        """When the timer at hand should fire, by the clock."""
        self._late = 0.0
        self._since_step = 0.0
        self._limit = float(most)
        self._refused = 0
        self._since_told = 0.0
        self.open = 0
        """Turns that are open."""
        self.in_line = 0
        """Those of them that wait for another message of their user."""

    @property
    def full(self) -> bool:
        """Whether another turn is to be refused."""
        return self.open >= self._most or self._active >= int(self._least if self._behind else self._limit)

    def refuse(self) -> None:
        """Counts a message that was refused, for the log."""
        self._refused += 1

    @property
    def _behind(self) -> bool:
        """Whether the timer at hand is far too late already. Not by the loop's clock, which stands still meanwhile."""
        return self._clock() - self._due > BEHIND_SECONDS

    @property
    def _active(self) -> int:
        return self.open - self.in_line

    def tick(self, late: float) -> None:
        """A timer fired ``late`` seconds late, :data:`TICK_SECONDS` after the one before."""
        self._due = self._clock() + TICK_SECONDS
        self._late += SMOOTH * (late - self._late)
        self._tell(TICK_SECONDS + late)
        self._since_step += TICK_SECONDS + late
        if self._since_step < STEP_SECONDS:
            return
        self._since_step = 0.0
        if self._late <= self._late_seconds:
            self._limit = min(self._most, self._limit * RISE)
        elif self._active >= self._least:  # else others take the CPU: this process as it starts, or other pods
            fall = FALL if self._late <= FAR_TOO_LATE * self._late_seconds else FALL_FAST
            self._limit = max(self._least, min(self._limit, self._active) * fall)

    async def watch(self) -> NoReturn:
        """Looks at how late timers are, until it is cancelled."""
        self._due = self._clock() + TICK_SECONDS
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick(max(0.0, self._clock() - self._due))

    def _tell(self, seconds: float) -> None:
        self._since_told += seconds
        if self._refused and self._since_told >= TELL_SECONDS:
            told = {"refused": self._refused, "limit": int(self._limit), "late_ms": round(1000 * self._late)}
            _log.warning("more messages than this process keeps up with", extra=told)
            self._refused, self._since_told = 0, 0.0
