"""How long to wait before something is tried again."""

import random
from typing import Final

FACTOR: Final = 2.0
SPREAD: Final = 0.2


class Backoff:
    """Delays that double from ``first`` to ``longest`` seconds, each spread by a fifth so that not all come at once.

    ``next()`` after each failure; ``reset()`` after a success.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self.failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        delay = min(self._longest, self._first * FACTOR ** min(self.failures, 30))
        self.failures += 1
        return delay * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311 - it spreads retries, guards nothing

    def reset(self) -> None:
        """The next failure is the first again."""
        self.failures = 0
