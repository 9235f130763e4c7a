"""A chat system that keeps its promises, simulated: what its clients were told, and what is seen of it afterwards."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from actor_load.checker import rules
from actor_load.checker.seen import Entry, Seen, State, Stored
from actor_load.checker.told import Activation, Reply, Try, Turn

FATES = ("answered", "refused", "lost", "stored", "late", "replayed")
"""What may become of a turn: answered; refused; its client never learns it, and it is not stored, or it is, at once or
after turns that were sent later; the first try breaks after the commit, and the second is answered."""

ANOTHER = "something else"


@dataclass
class Case:
    """What clients were told and what is seen, to be spoilt."""

    turns: list[Turn]
    seen: dict[str, Seen]
    activations: list[Activation] = field(default_factory=list)

    def broken(self):
        """The violations."""
        owners = {turn.turn_id: turn.user_id for turn in self.turns}
        found = rules.double_activations(self.activations)
        for user_id, seen in self.seen.items():
            found += rules.violations([turn for turn in self.turns if turn.user_id == user_id], seen, owners)
        return found

    def of(self, *outcomes, user="ann"):
        """A user's turns with these outcomes."""
        return [turn for turn in self.turns if turn.user_id == user and turn.outcome in outcomes]

    def stored(self, turn):
        """A turn as the transcripts have it; ``None``: they don't."""
        entries = self.transcript(turn)
        pair = [entry for entry in entries if entry.turn_id == turn.turn_id]
        if not pair:
            return None
        return Stored(turn.turn_id, pair[0].sequence, turn.session_id, *(each.content for each in pair))

    def transcript(self, turn):
        """That of the turn's session."""
        return self.seen[turn.user_id].transcripts[turn.session_id]

    def take_out(self, turn):
        """Takes a turn out of its transcript; its two entries, and where they were."""
        entries = self.transcript(turn)
        at = next(at for at, entry in enumerate(entries) if entry.turn_id == turn.turn_id)
        pair = entries[at : at + 2]
        del entries[at : at + 2]
        return pair, at

    def retell(self, turn, **changes):
        """The reply that a turn's client was told becomes another."""
        tries = tuple(
            replace(each, reply=replace(each.reply, **changes)) if each.reply else each for each in turn.tries
        )
        self.turns[self.turns.index(turn)] = replace(turn, tries=tries)


class System:
    """Takes turns, and does with each what its fate is."""

    def __init__(self):
        self._clock = 1000.0
        self._turns = []
        self._committed = defaultdict(list)
        self._late = []

    def turn(self, user_id, session, fate, seconds=0.1, *, at_once=False):
        """A message of a user; ``at_once``: it is sent before the one before is answered."""
        sent = self._clock - (0.05 if at_once and self._turns else 0)
        number = len(self._turns)
        turn = Turn(user_id, f"turn-{number}", f"{user_id}-{session}", f"message {number}", sent, ())
        if len(self._late) > 1:
            self._commit(self._late.pop(0))
        tries = [Try(sent, sent + seconds, "unknown", "no answer")]
        match fate:
            case "answered":
                tries = [self._answered(turn, sent, seconds)]
            case "refused":
                tries = [Try(sent, sent + seconds, "refused", "503 /problems/draining")]
            case "stored":
                self._commit(turn)
            case "late":
                self._late.append(turn)
            case "replayed":
                tries.append(self._answered(turn, sent + seconds, seconds))
        self._turns.append(replace(turn, tries=tuple(tries)))
        self._clock = tries[-1].ended + 0.1

    def rest(self):
        """Nobody chats any more."""
        while self._late:
            self._commit(self._late.pop(0))
        users = {turn.user_id for turn in self._turns}
        return Case(self._turns, {user_id: self._seen(user_id) for user_id in sorted(users)})

    def _commit(self, turn):
        sequence = len(self._committed[turn.user_id]) + 1
        self._committed[turn.user_id].append(
            Stored(turn.turn_id, sequence, turn.session_id, turn.text, f"You said {turn.text}")
        )
        return self._committed[turn.user_id][-1]

    def _answered(self, turn, sent, seconds):
        stored = self._commit(turn)
        reply = Reply(stored.reply, stored.session_id, stored.turn_id, stored.sequence)
        return Try(sent, sent + seconds, "answered", "200", reply)

    def _seen(self, user_id):
        committed = self._committed[user_id]
        own = [turn for turn in self._turns if turn.user_id == user_id]
        seen = Seen({turn.session_id: [] for turn in own}, committed[-rules.WINDOW :])
        for stored in committed:
            seen.transcripts[stored.session_id] += entries(user_id, stored)
        known = {stored.turn_id: stored for stored in committed}
        for turn in own:
            stored = known.get(turn.turn_id)
            seen.states[turn.turn_id] = (
                State("committed", stored.reply, stored.session_id, stored.sequence)
                if stored
                else State("not_committed")
            )
        return seen


def entries(user_id, stored):
    """A turn as a transcript has it."""
    return [
        Entry("user", stored.text, user_id, stored.turn_id, stored.sequence),
        Entry("assistant", stored.reply, user_id, stored.turn_id, stored.sequence),
    ]
