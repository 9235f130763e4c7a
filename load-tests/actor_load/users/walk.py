"""Going through many ids, each until it has answered."""

import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

TRIES: Final = 10
PAUSE_SECONDS: Final = 1.0
"""What failed is left alone for as long: placement may need seconds to name a new host."""


class Walk:
    """Numbers that several Locust users of a process draw from: each until it is done, or given up after ``TRIES``."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._ahead = iter(numbers)
        self._again: deque[tuple[float, int]] = deque()
        self._failures: Counter[int] = Counter()

    def step(self) -> int | None:
        """The next number; ``None`` where there is none at the moment. What was drawn is to be given to
        :meth:`failed` or :meth:`put_back`, or it is done."""
        if self._again and self._again[0][0] <= time.monotonic():
            return self._again.popleft()[1]
        return next(self._ahead, None)

    def failed(self, number: int) -> bool:
        """It comes again later; ``False``: it is given up."""
        self._failures[number] += 1
        if self._failures[number] == TRIES:
            return False
        self._again.append((time.monotonic() + PAUSE_SECONDS, number))
        return True

    def put_back(self, number: int) -> None:
        """Whoever drew it was ended before it was done."""
        self._again.appendleft((0.0, number))
