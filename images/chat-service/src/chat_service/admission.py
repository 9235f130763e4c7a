"""How many turns this process takes on: as many as it keeps up with.

A turn that waits for its model costs nothing, so a fixed number fits no machine and no model. What tells is the event
loop: where more turns want to run than the CPU can, a timer fires late. So the limit falls, in proportion, while timers
are late, and rises again while they are not. Whoever is above it is refused at once and cheaply; those who are in are
answered in time, and so are the probes of sidecar and kubelet. Who stands in line behind another message of the same
user takes no CPU, so only the fixed number bounds those.
"""

import asyncio
from typing import Final, NoReturn

LEAST: Final = 48
"""Turns that are taken on however late the timers are: a burst is no overload."""
TICK_SECONDS: Final = 0.05
SMOOTH: Final = 0.2
"""The share of a tick in the average: what a quarter of a second says."""
STEP_SECONDS: Final = 0.25
"""Between two changes of the limit, so that the effect of one is seen before the next."""
FALL: Final = 0.85
RISE: Final = 1.1


class Admission:
    """The limit on open turns."""

    def __init__(self, most: int, late_seconds: float) -> None:
        """``most`` are taken on at best; timers may be ``late_seconds`` late."""
        self._most = most
        self._least = min(LEAST, most)
        self._late_seconds = late_seconds
        self._late = 0.0
        self._since_step = 0.0
        self._limit = float(most)
        self.open = 0
        """Turns that are open."""
        self.in_line = 0
        """Those of them that wait for another message of their user."""

    @property
    def full(self) -> bool:
        """Whether another turn is to be refused."""
        return self.open >= self._most or self._active >= int(self._limit)

    @property
    def _active(self) -> int:
        return self.open - self.in_line

    def tick(self, late: float) -> None:
        """A timer fired ``late`` seconds late, :data:`TICK_SECONDS` after the one before."""
        self._late += SMOOTH * (late - self._late)
        self._since_step += TICK_SECONDS + late
        if self._since_step < STEP_SECONDS:
            return
        self._since_step = 0.0
        if self._late <= self._late_seconds:
            self._limit = min(self._most, self._limit * RISE)
        elif self._active >= self._least:  # else others take the CPU: this process as it starts, or other pods
            self._limit = max(self._least, min(self._limit, self._active) * FALL)

    async def watch(self) -> NoReturn:
        """Looks at how late timers are, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.tick(max(0.0, loop.time() - due))
