"""The promises to those who chat (docs/architecture.md), and what breaks them: every turn answered 200 was committed
exactly once, in the order that its user saw; the last 5 are in the history and every one reaches the transcript once; a
turn that failed is in neither, unless it is retried under its key and then once; a retry gets the same reply.

A turn of unknown outcome may be stored or not, but once at most, and everywhere or nowhere.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise
from typing import Final

from actor_load.checker.seen import Entry, Seen, State, Stored
from actor_load.checker.told import Activation, Turn, by_key

KEPT: Final = "every committed turn is in the transcript"
ONCE: Final = "no turn is in the transcript twice"
SAME: Final = "what is stored is what was said and told"
REFUSED: Final = "no refused turn is stored"
REPLAYED: Final = "one key has one reply"
ORDER: Final = "turns are stored in the order that their user saw"
COUNTED: Final = "sequences have no gap and no repetition"
WHOLE: Final = "a message and its reply stand together"
TAIL: Final = "the history is the last five turns"
OWN: Final = "nobody has a turn of somebody else"
SETTLED: Final = "what is said of a turn is what became of it"
ENDED: Final = "no turn stays open"
ALONE: Final = "no actor is active twice at a time"

RULES: Final = (KEPT, ONCE, SAME, REFUSED, REPLAYED, ORDER, COUNTED, WHOLE, TAIL, OWN, SETTLED, ENDED, ALONE)

WINDOW: Final = 5
"""Turns of a history."""

CLOCKS_SECONDS: Final = 0.25
"""So much the clocks of those who ask may differ."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken."""

    rule: str
    """One of :data:`RULES`."""
    user_id: str
    """Of a user of the load tests; nobody's name."""
    turn_id: str
    """Empty where it is of no one turn."""
    words: str
    """What is wrong, for a person."""


def violations(turns: Sequence[Turn], seen: Seen, owners: Mapping[str, str]) -> list[Violation]:
    """What is wrong with one user's turns.

    Args:
        turns: all that clients sent for this user.
        seen: what was read of the user.
        owners: key -> user, of all turns of all users.
    """
    return list(_User(turns, seen, owners).broken())


def double_activations(activations: Iterable[Activation]) -> list[Violation]:
    """Actors of whom two activations were surely alive at the same moment: one answered between two answers of the
    other."""
    found = []
    for actor_id, of_one in groupby(sorted(activations, key=_actor), _actor):
        for one, other in combinations(of_one, 2):
            if _overlap(one, other):
                words = (
                    f"activation {one.activation_id} on {one.host} and activation {other.activation_id} on "
                    f"{other.host} answered in turn: both were alive at once"
                )
                found.append(Violation(ALONE, actor_id, "", words))
    return found


def _actor(activation: Activation) -> str:
    return activation.actor_id


def _overlap(one: Activation, other: Activation) -> bool:
    """An activation was alive from its first answer to its last question; where it was asked only once, at some moment
    between question and answer."""
    if one.last_asked < one.first_answered:
        one, other = other, one
    if one.last_asked < one.first_answered:
        return False  # both only once: they may have followed each other
    if other.last_asked < other.first_answered:
        return (
            other.last_asked - one.first_answered > CLOCKS_SECONDS
            and one.last_asked - other.first_answered > CLOCKS_SECONDS
        )
    shared = min(one.last_asked, other.last_asked) - max(one.first_answered, other.first_answered)
    return shared > CLOCKS_SECONDS


class _Sent:
    """All that was sent under one key: by one client, or by several."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns = turns
        self.turn_id = turns[0].turn_id
        outcomes = {turn.outcome for turn in turns}
        self.outcome = next(each for each in ("answered", "unknown", "refused") if each in outcomes)
        self.replies = [each.reply for turn in turns for each in turn.tries if each.reply]
        self.reply = self.replies[0] if self.replies else None
        self.first_sent = min(turn.sent for turn in turns)
        self.answered = min((turn.ended for turn in turns if turn.outcome == "answered"), default=None)
        # A key that is used for another message is refused: what is stored is not that message.
        taken = [turn for turn in turns if turn.outcome != "refused"] or turns
        self.texts = {turn.text for turn in taken}
        named = {turn.session_id for turn in taken} - {""}
        self.sessions = named or {reply.session_id for reply in self.replies}

    def differs(self, stored: Stored) -> str:
        """What of a stored turn is not as it was said and told, or nothing."""
        if stored.text not in self.texts:
            return f"the message is {_short(stored.text)}, and {_short(min(self.texts))} was sent"
        if self.sessions and stored.session_id not in self.sessions:
            return f"it is in session {stored.session_id}, and was sent to {min(self.sessions)}"
        if self.reply is not None and stored.reply != self.reply.text:
            return f"the reply is {_short(stored.reply)}, and {_short(self.reply.text)} was told"
        if self.reply is not None and stored.sequence != self.reply.sequence:
            return f"its sequence is {stored.sequence}, and {self.reply.sequence} was told"
        return ""


class _User:
    """One user: what was told, beside what was seen."""

    def __init__(self, turns: Sequence[Turn], seen: Seen, owners: Mapping[str, str]) -> None:
        self._user_id = turns[0].user_id
        self._seen = seen
        self._owners = owners
        self._sent = {key: _Sent(group) for key, group in by_key(turns).items()}
        self._all_read = all(
            sent.sessions <= seen.transcripts.keys() and (sent.sessions or sent.outcome == "refused")
            for sent in self._sent.values()
        )
        self._broken: list[Violation] = []
        self._stored: dict[str, Stored] = {}
        """Key -> the turn as the transcripts have it first."""

    def broken(self) -> list[Violation]:
        self._answers()
        for session_id, entries in self._seen.transcripts.items():
            self._transcript(session_id, entries)
        self._kept()
        self._order()
        self._counted()
        self._history()
        for turn_id, state in self._seen.states.items():
            self._state(turn_id, state)
        return self._broken

    def _note(self, rule: str, turn_id: str, words: str) -> None:
        self._broken.append(Violation(rule, self._user_id, turn_id, words))

    def _answers(self) -> None:
        for turn_id, sent in self._sent.items():
            for reply in sent.replies:
                if reply.turn_id != turn_id:
                    self._note(OWN, turn_id, f"it was answered as turn {reply.turn_id}")
                if sent.sessions and reply.session_id not in sent.sessions:
                    self._note(OWN, turn_id, f"it was answered as one of session {reply.session_id}")
            for first, later in pairwise(sent.replies):
                if (first.text, first.sequence) != (later.text, later.sequence):
                    words = (
                        f"it was answered {_short(first.text)} with sequence {first.sequence}, and then "
                        f"{_short(later.text)} with sequence {later.sequence}"
                    )
                    self._note(REPLAYED, turn_id, words)

    def _transcript(self, session_id: str, entries: Sequence[Entry]) -> None:
        found = list(self._pairs(session_id, entries))
        for before, after in pairwise(found):
            if before.sequence > after.sequence:
                words = f"it has sequence {after.sequence} and stands behind sequence {before.sequence}"
                self._note(ORDER, after.turn_id, words)
        for stored in found:
            if stored.turn_id in self._stored:
                at_most = "; its outcome is unknown, so it may be there once" if self._is_unknown(stored) else ""
                self._note(ONCE, stored.turn_id, f"it is there again with sequence {stored.sequence}{at_most}")
                continue
            self._stored[stored.turn_id] = stored
            self._is_as_sent(stored, "the transcript")

    def _pairs(self, session_id: str, entries: Sequence[Entry]) -> Iterator[Stored]:
        at = 0
        while at < len(entries):
            said = entries[at]
            replied = entries[at + 1] if at + 1 < len(entries) else None
            if said.user_id != self._user_id:
                self._note(OWN, said.turn_id, f"the transcript has a message of {said.user_id}: {_short(said.content)}")
            if (
                replied is not None
                and (said.role, replied.role) == ("user", "assistant")
                and (said.turn_id, said.sequence) == (replied.turn_id, replied.sequence)
            ):
                yield Stored(said.turn_id, said.sequence, session_id, said.content, replied.content)
                at += 2
                continue
            behind = f"behind it is {replied.role} of turn {replied.turn_id}" if replied else "behind it is nothing"
            self._note(WHOLE, said.turn_id, f"{said.role} {_short(said.content)} stands alone: {behind}")
            at += 1

    def _is_as_sent(self, stored: Stored, where: str) -> None:
        sent = self._sent.get(stored.turn_id)
        if sent is None:
            owner = self._owners.get(stored.turn_id)
            whose = f"which {owner} sent" if owner else "which nobody sent"
            self._note(OWN, stored.turn_id, f"{where} has it, {whose}: {_short(stored.text)}")
        elif sent.outcome == "refused":
            said = sent.turns[-1].tries[-1].said
            self._note(REFUSED, stored.turn_id, f"{where} has it, and it was refused: {said}")
        elif differs := sent.differs(stored):
            self._note(SAME, stored.turn_id, f"in {where} {differs}")

    def _kept(self) -> None:
        for turn_id, sent in self._sent.items():
            if sent.reply is None or turn_id in self._stored:
                continue
            if sent.reply.session_id in self._seen.transcripts:
                words = f"it was answered with sequence {sent.reply.sequence}, and the transcript lacks it"
                self._note(KEPT, turn_id, words)

    def _order(self) -> None:
        """A turn that was sent when another was answered already has a higher sequence."""
        answered = sorted(
            (sent.answered, sent.reply.sequence, sent.turn_id)
            for sent in self._sent.values()
            if sent.answered is not None and sent.reply is not None
        )
        next_one, floor, last = 0, 0, ""
        for sent in sorted(self._sent.values(), key=lambda sent: sent.first_sent):
            while next_one < len(answered) and answered[next_one][0] < sent.first_sent:
                _, sequence, turn_id = answered[next_one]
                if sequence > floor:
                    floor, last = sequence, turn_id
                next_one += 1
            stored = self._stored.get(sent.turn_id)
            known = sent.reply.sequence if sent.reply else stored.sequence if stored else None
            if known is not None and known < floor:
                words = f"it has sequence {known}, and was sent after turn {last} was answered with sequence {floor}"
                self._note(ORDER, sent.turn_id, words)

    def _counted(self) -> None:
        told = [(sent.reply.sequence, sent.turn_id) for sent in self._sent.values() if sent.reply]
        stored = [(each.sequence, each.turn_id) for each in self._stored.values()]
        for source, pairs in (("was told", told), ("is stored", stored)):
            times = Counter(sequence for sequence, _ in pairs)
            for sequence in sorted(sequence for sequence, count in times.items() if count > 1):
                of = " and ".join(sorted(turn_id for number, turn_id in pairs if number == sequence))
                self._note(COUNTED, "", f"sequence {sequence} {source} of turns {of}")
        numbers = {sequence for sequence, _ in told} | {sequence for sequence, _ in stored}
        missing = sorted(set(range(1, max(numbers, default=0) + 1)) - numbers)
        # What is in no transcript that was read may be a turn of unknown outcome.
        allowed = 0 if self._all_read else sum(sent.outcome == "unknown" for sent in self._sent.values())
        if len(missing) > allowed:
            listed = ", ".join(map(str, missing[:WINDOW])) + (", ..." if len(missing) > WINDOW else "")
            self._note(COUNTED, "", f"of {max(numbers)} sequences {len(missing)} belong to no turn: {listed}")

    def _history(self) -> None:
        history = self._seen.history
        if history is None:
            return
        for stored in history:
            if stored.turn_id not in self._stored:
                self._is_as_sent(stored, "the history")
        if self._all_read:
            expected = sorted(self._stored.values(), key=lambda stored: stored.sequence)[-WINDOW:]
            if history == expected:
                return
            if _sequences(history) != _sequences(expected):
                words = f"it has sequences {_sequences(history)}, and the transcripts end with {_sequences(expected)}"
                self._note(TAIL, "", words)
                return
            for one, other in zip(history, expected, strict=True):
                if one != other:
                    self._note(TAIL, one.turn_id, f"it is {_stored(one)} there, and {_stored(other)} in the transcript")
            return
        self._history_alone(history)

    def _history_alone(self, history: Sequence[Stored]) -> None:
        """Without all transcripts it is held against what was told."""
        numbers = [stored.sequence for stored in history]
        last = max([*numbers, *(sent.reply.sequence for sent in self._sent.values() if sent.reply)], default=0)
        if numbers != list(range(max(1, last - WINDOW + 1), last + 1)):
            self._note(TAIL, "", f"it has sequences {_sequences(history)}, and the last turn has {last}")

    def _state(self, turn_id: str, state: State) -> None:
        sent, stored = self._sent[turn_id], self._stored.get(turn_id)
        if state.status == "open":
            self._note(ENDED, turn_id, "it is still open, although nobody chats any more")
        elif state.status == "not_committed":
            if sent.outcome == "answered":
                self._note(SETTLED, turn_id, "it was answered, and is said not to be committed")
            elif stored is not None:
                self._note(SETTLED, turn_id, "it is in the transcript, and is said not to be committed")
        elif sent.outcome == "refused":
            said = sent.turns[-1].tries[-1].said
            self._note(REFUSED, turn_id, f"it is said to be committed, and it was refused: {said}")
        else:
            self._committed(sent, stored, state)

    def _committed(self, sent: _Sent, stored: Stored | None, state: State) -> None:
        if sent.reply is not None and (state.reply, state.sequence) != (sent.reply.text, sent.reply.sequence):
            words = (
                f"it was answered {_short(sent.reply.text)} with sequence {sent.reply.sequence}, and is said to be "
                f"{_short(state.reply)} with sequence {state.sequence}"
            )
            self._note(REPLAYED, sent.turn_id, words)
        elif stored is not None and (state.reply, state.sequence) != (stored.reply, stored.sequence):
            words = f"it is said to be {_short(state.reply)}, and the transcript has {_short(stored.reply)}"
            self._note(SETTLED, sent.turn_id, words)
        elif stored is None and sent.reply is None and state.session_id in self._seen.transcripts:
            self._note(KEPT, sent.turn_id, "it is said to be committed, and the transcript lacks it")

    def _is_unknown(self, stored: Stored) -> bool:
        sent = self._sent.get(stored.turn_id)
        return sent is not None and sent.outcome == "unknown"


def _sequences(turns: Iterable[Stored]) -> str:
    return ", ".join(str(stored.sequence) for stored in turns) or "none"


def _stored(stored: Stored) -> str:
    return f"turn {stored.turn_id} of session {stored.session_id}, {_short(stored.text)}, {_short(stored.reply)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
