"""All turns of a run held against what is stored: a section of the report, with a check for each promise."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Protocol

from actor_load.checker import pauses, rules
from actor_load.checker.reader import AT_ONCE
from actor_load.checker.rules import Violation
from actor_load.checker.seen import Seen
from actor_load.checker.told import Told, Turn
from actor_load.record import Check, Event, Figure, Section, Table
from actor_load.words import counted, elapsed, latency, percent

LOOK_SECONDS: Final = 1.0
"""Between two looks at those of whom something is wrong or missing."""
MOST_ASKED: Final = 1000
"""So many of the turns that were answered at once are asked about once more; of all others each one is."""
MOST_ROWS: Final = 50
BEFORE_SECONDS: Final = 8.0
"""How turns are answered before a change is seen by these seconds: scenarios rest so long, or longer, before each."""

TITLE: Final = "What clients were told, and what is stored"
VIOLATION_COLUMNS: Final = ["what must hold", "user", "turn", "what is wrong"]
CHANGE_COLUMNS: Final = [
    "change",
    "at",
    "turns due",
    "refused",
    "unknown",
    "tried again",
    "longest without an answer for anybody",
    "for one user",
    "answered at once again after",
]

_OF_TRANSCRIPTS: Final = (rules.KEPT, rules.ONCE, rules.WHOLE)
_OF_OUTCOMES: Final = (rules.SETTLED, rules.ENDED)


class Reads(Protocol):
    """What reads a user: :class:`actor_load.checker.reader.Reader`."""

    def read(self, turns: Sequence[Turn], asked: Iterable[str]) -> Seen:
        """What is stored of a user; ``asked``: the keys of turns whose outcome is asked for."""


@dataclass
class Verification:
    """What was found."""

    violations: list[Violation] = field(default_factory=list)
    users: int = 0
    checked: int = 0
    """Turns that were held against all that is read."""
    not_checked: int = 0
    """Turns of users of whom something could not be read, or who were left out."""
    asked: int = 0
    """Turns whose outcome was told."""
    transcripts: int = 0
    histories: int = 0
    activations: int = 0
    complete_seconds: float = 0.0
    """From the first look to the one in which all was as it should be, or to the last."""
    unread: Counter[str] = field(default_factory=Counter)
    """Why something could not be read -> how often."""


def verify(
    told: Told,
    reader: Reads,
    *,
    settle_seconds: float,
    hurry: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Verification:
    """Reads all users, and those of whom something is wrong or missing again and again for ``settle_seconds``: events
    may be under way. What is wrong at the last look counts. Once ``hurry()`` is true there is no other look."""
    owners = {turn.turn_id: turn.user_id for turn in told.turns}
    asked = _asked(told)
    looks: dict[str, tuple[Seen, list[Violation]]] = {}

    def look(user_id: str) -> None:
        turns = told.users[user_id]
        seen = reader.read(turns, list(dict.fromkeys(turn.turn_id for turn in turns if turn.turn_id in asked)))
        looks[user_id] = seen, rules.violations(turns, seen, owners)

    started = clock()
    open_users = list(told.users)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            spent = clock() - started
            list(pool.map(look, open_users))
            open_users = [user_id for user_id in open_users if looks[user_id][1] or looks[user_id][0].unread]
            if not open_users or spent >= settle_seconds or hurry():
                break
            sleep(LOOK_SECONDS)
    found = Verification(users=len(looks), not_checked=told.left_out, complete_seconds=spent)
    for user_id, (seen, broken) in looks.items():
        found.violations += broken
        found.unread.update(seen.unread)
        found.asked += len(seen.states)
        found.transcripts += len(seen.transcripts)
        found.histories += seen.history is not None
        if seen.unread:
            found.not_checked += len(told.users[user_id])
        else:
            found.checked += len(told.users[user_id])
    activations = told.activations
    found.activations = len(activations)
    found.violations += rules.double_activations(activations)
    return found


def section(told: Told, found: Verification, *, started: float, ended: float, events: Sequence[Event]) -> Section:
    """The section of the report; ``events`` are those of the run, whose actions get a row each."""
    turns = told.turns
    return Section(
        title=TITLE,
        text=(
            f"{counted(len(turns), 'turn')} of {counted(found.users, 'user')}, as their clients were told of them, "
            f"against {counted(found.transcripts, 'transcript')}, {_histories(found.histories)} and "
            f"{counted(found.asked, 'outcome')} that were read when nobody chatted any more."
        ),
        started=started,
        ended=ended,
        figures=_figures(turns, found, started),
        tables=[*_changes(turns, events, started, ended), *_broken(found)],
        checks=_checks(found),
    )


def _asked(told: Told) -> set[str]:
    """Keys of the turns whose outcome is asked for: all that did not simply go well, and a part of the others."""
    smooth, asked = [], set()
    for turn in told.turns:
        if turn.outcome == "answered" and len(turn.tries) == 1:
            smooth.append(turn.turn_id)
        else:
            asked.add(turn.turn_id)
    return asked | set(smooth[:: max(1, ceil(len(smooth) / MOST_ASKED))])


def _figures(turns: Sequence[Turn], found: Verification, started: float) -> list[Figure]:
    outcomes = Counter(turn.outcome for turn in turns)
    tried_again = sum(len(turn.tries) > 1 for turn in turns)
    anybody, one = pauses.longest(turns), pauses.longest_of_one(turns)
    left = f"{found.not_checked:,} could not be" if found.not_checked else "all of them"
    return [
        Figure(name="turns checked", value=f"{found.checked:,}", note=left),
        Figure(name="violations", value=f"{len(found.violations):,}"),
        Figure(name="answered", value=f"{outcomes['answered']:,}", note=f"{tried_again:,} turns were tried again"),
        Figure(name="failed", value=f"{outcomes['refused'] + outcomes['unknown']:,}"),
        Figure(name="of these unknown", value=f"{outcomes['unknown']:,}", note="stored or not"),
        Figure(name="longest without an answer for anybody", value=_long(anybody), note=_when(anybody, started)),
        Figure(name="for one user", value=_long(one), note=_when(one, started)),
        Figure(
            name="double activations",
            value=str(sum(each.rule == rules.ALONE for each in found.violations)) if found.activations else "-",
            note=f"of {counted(found.activations, 'activation')} seen",
        ),
        Figure(
            name="all is stored as it should be",
            value="no" if found.violations or found.unread else "yes",
            note=f"{found.complete_seconds:.1f} s from the first look to the last",
        ),
    ]


def _changes(turns: Sequence[Turn], events: Sequence[Event], started: float, ended: float) -> list[Table]:
    """What clients were told while each of the scenario's actions went on, until the next."""
    actions = [event for event in events if event.kind == "action"]
    rows = []
    for number, action in enumerate(actions):
        until = actions[number + 1].at if number + 1 < len(actions) else ended
        before = max(actions[number - 1].at if number else started, action.at - BEFORE_SECONDS)
        due = [turn for turn in turns if action.at <= turn.due < until]
        if not due:
            continue
        outcomes = Counter(turn.outcome for turn in due)
        recovered = pauses.recovery_seconds(turns, before, action.at, until)
        rows.append(
            [
                action.text,
                elapsed(action.at - started),
                f"{len(due):,}",
                str(outcomes["refused"]),
                str(outcomes["unknown"]),
                str(sum(len(turn.tries) > 1 for turn in due)),
                _long(pauses.longest(turns, action.at, until)),
                _long(pauses.longest_of_one(turns, action.at, until)),
                "-" if recovered is None else f"{recovered:.1f} s",
            ]
        )
    return [Table(title="What clients were told of each change", columns=CHANGE_COLUMNS, rows=rows)] if rows else []


def _broken(found: Verification) -> list[Table]:
    rows = [[each.rule, each.user_id, each.turn_id or "-", each.words] for each in found.violations[:MOST_ROWS]]
    if more := len(found.violations) - len(rows):
        rows.append([f"and {more:,} more", "", "", ""])
    return [Table(title="What is wrong", columns=VIOLATION_COLUMNS, rows=rows)] if rows else []


def _checks(found: Verification) -> list[Check]:
    everything = found.checked + found.not_checked
    checked = f"{found.checked:,} of {counted(everything, 'turn')}"
    if everything:
        checked += f" ({percent(found.checked / everything)})"
    checked += "".join(f"; {why}, {count:,} times" for why, count in found.unread.most_common(3))
    held = bool(found.checked or found.activations) and not found.unread
    checks = [Check(name="what clients were told could be checked", passed=held, detail=checked)]
    for rule in rules.RULES:
        broken = [each for each in found.violations if each.rule == rule]
        if not broken and not _was_looked_at(rule, found):
            continue
        if broken:
            first = broken[0]
            of = f"turn {first.turn_id} of {first.user_id}" if first.turn_id else first.user_id
            detail = f"{counted(len(broken), 'violation')}; the first: {of}: {first.words}"
        elif rule == rules.ALONE:
            detail = counted(found.activations, "activation")
        elif rule == rules.TAIL:
            detail = _histories(found.histories)
        else:
            detail = counted(found.checked, "turn")
        checks.append(Check(name=rule, passed=not broken, detail=detail))
    return checks


def _was_looked_at(rule: str, found: Verification) -> bool:
    if rule == rules.ALONE:
        return bool(found.activations)
    if rule == rules.TAIL:
        return bool(found.histories)
    if rule in _OF_OUTCOMES:
        return bool(found.asked)
    return bool(found.transcripts if rule in _OF_TRANSCRIPTS else found.checked)


def _histories(count: int) -> str:
    return f"{count:,} {'history' if count == 1 else 'histories'}"


def _long(pause: pauses.Pause | None) -> str:
    return latency(pause.seconds * 1000 if pause else None)


def _when(pause: pauses.Pause | None, started: float) -> str:
    if pause is None:
        return ""
    return " ".join([f"at {elapsed(pause.started - started)}", *([pause.user_id] if pause.user_id else [])])
