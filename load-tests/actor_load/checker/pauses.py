"""How long nobody was answered, and when all went as before again; from what clients were told alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from math import ceil
from typing import Final

from actor_load.checker.told import Turn

AS_BEFORE_SECONDS: Final = 0.25
"""A turn is answered at once where it took no longer than 99 of 100 before the change took, and this."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A time in which turns were open and none was answered. Times are Unix seconds."""

    started: float
    ended: float
    user_id: str = ""
    """Empty: nobody at all was answered."""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.started


def pauses(turns: Iterable[Turn]) -> list[Pause]:
    """All times from one answer to the next, as far as a turn was open; the time before one is given up is one, too."""
    turns = list(turns)
    opened = sorted((turn.due, 0, False) for turn in turns)
    closed = sorted((max(turn.due, turn.ended), 1, turn.outcome == "answered") for turn in turns)
    found, is_open, since = [], 0, 0.0
    for at, is_end, is_answer in merge(opened, closed):
        if not is_end:
            since = since if is_open else at
            is_open += 1
            continue
        is_open -= 1
        if is_answer or not is_open:
            found.append(Pause(since, at))
            since = at
    return found


def longest(turns: Sequence[Turn], started: float = float("-inf"), ended: float = float("inf")) -> Pause | None:
    """The longest without an answer for anybody, of those that lie partly in ``[started, ended)``."""
    return _longest(pauses(turns), started, ended)


def longest_of_one(turns: Sequence[Turn], started: float = float("-inf"), ended: float = float("inf")) -> Pause | None:
    """The longest that one user had no answer, of those that lie partly in ``[started, ended)``."""
    users: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        users[turn.user_id].append(turn)
    worst = None
    for user_id, own in users.items():
        pause = _longest(pauses(own), started, ended)
        if pause and (worst is None or pause.seconds > worst.seconds):
            worst = Pause(pause.started, pause.ended, user_id)
    return worst


def recovery_seconds(turns: Sequence[Turn], before: float, changed: float, ended: float) -> float | None:
    """Seconds from a change until turns are answered at once again: after that moment every turn that is due until
    ``ended`` is answered by its first try, as quickly as before (:data:`AS_BEFORE_SECONDS`).

    ``None``: they are not by ``ended``, or no turn tells how it was before. ``before`` is when that time begins.
    """
    usual = sorted(turn.ended - turn.due for turn in turns if before <= turn.due < changed and _is_smooth(turn))
    if not usual:
        return None
    limit = usual[ceil(len(usual) * 0.99) - 1] + AS_BEFORE_SECONDS
    slow, smooth = changed, None
    for turn in sorted((turn for turn in turns if changed <= turn.due < ended), key=lambda turn: turn.due):
        if not _is_smooth(turn) or turn.ended - turn.due > limit:
            slow, smooth = turn.due, None
        elif smooth is None:
            smooth = turn.due
    if smooth is None:
        return None
    return 0.0 if slow == changed else smooth - changed


def _longest(found: Iterable[Pause], started: float, ended: float) -> Pause | None:
    inside = (pause for pause in found if pause.ended > started and pause.started < ended)
    return max(inside, key=lambda pause: pause.seconds, default=None)


def _is_smooth(turn: Turn) -> bool:
    return turn.outcome == "answered" and len(turn.tries) == 1
