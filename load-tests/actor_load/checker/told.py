"""What clients were told, turn by turn, and where actors said that they live. Times are Unix seconds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter

Outcome = Literal["answered", "refused", "unknown"]
"""Committed, as the client was told; not committed, as the client was told; the client can't know."""

MOST_TURNS: Final = 200_000
"""About 200 MB. Of a longer run whole users are left out, so that those who stay can be checked wholly."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a 200 said."""

    text: str
    session_id: str
    turn_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Try:
    """One request of a turn."""

    sent: float
    ended: float
    """When its answer was there, or the connection broke."""
    outcome: Outcome
    said: str
    """What came, in a few words: ``200``, ``503 /problems/draining``, ``no answer``."""
    reply: Reply | None = None
    """Where it was answered."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a user under one Idempotency-Key, with all its tries."""

    user_id: str
    turn_id: str
    """The key."""
    session_id: str
    """As the client named it; empty: it named none."""
    text: str
    due: float
    """When it should have been sent first."""
    tries: tuple[Try, ...]

    @property
    def outcome(self) -> Outcome:
        """Refused is only what every try was refused: one that broke may have committed the turn."""
        outcomes = {each.outcome for each in self.tries}
        if "answered" in outcomes:
            return "answered"
        return "refused" if outcomes == {"refused"} else "unknown"

    @property
    def reply(self) -> Reply | None:
        """What it was answered first."""
        return next((each.reply for each in self.tries if each.reply), None)

    @property
    def sent(self) -> float:
        """First."""
        return self.tries[0].sent if self.tries else self.due

    @property
    def ended(self) -> float:
        """When it was answered first, or given up."""
        return next((each.ended for each in self.tries if each.reply), self.tries[-1].ended if self.tries else self.due)


@dataclass(frozen=True, slots=True)
class Activation:
    """One activation of an actor, by the answers that named it."""

    actor_id: str
    activation_id: str
    host: str
    first_answered: float
    last_asked: float

    def and_(self, other: "Activation") -> "Activation":
        """Both taken together."""
        return Activation(
            self.actor_id,
            self.activation_id,
            self.host,
            min(self.first_answered, other.first_answered),
            max(self.last_asked, other.last_asked),
        )


_turns: Final = TypeAdapter(list[Turn])
_activations: Final = TypeAdapter(list[Activation])


class Notes:
    """What one process has noted since it was last asked."""

    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._activations: dict[tuple[str, str], Activation] = {}

    def turn(self, turn: Turn) -> None:
        """A turn came to its end."""
        self._turns.append(turn)

    def activation(self, actor_id: str, activation_id: str, host: str, asked: float, answered: float) -> None:
        """An actor answered, and named its activation."""
        _merge(self._activations, Activation(actor_id, activation_id, host, answered, asked))

    def take(self) -> dict[str, Any]:
        """All of it as plain data for a message; noting starts anew."""
        turns, self._turns = self._turns, []
        activations, self._activations = self._activations, {}
        return {
            "turns": _turns.dump_python(turns, mode="json"),
            "activations": _activations.dump_python(list(activations.values()), mode="json"),
        }


class Told:
    """What all processes have noted."""

    def __init__(self, most_turns: int = MOST_TURNS) -> None:
        """Beyond ``most_turns`` users are left out: those who came last, and all who come later."""
        self.users: dict[str, list[Turn]] = defaultdict(list)
        """User -> turns, as they ended."""
        self.left_out = 0
        """Turns of users who are left out."""
        self._activations: dict[tuple[str, str], Activation] = {}
        self._most = most_turns
        self._count = 0
        self._is_full = False

    def add(self, notes: Mapping[str, Any]) -> None:
        """Adds what :meth:`Notes.take` gave.

        Raises:
            pydantic.ValidationError: it is something else.
        """
        for turn in _turns.validate_python(notes["turns"]):
            self._add(turn)
        for activation in _activations.validate_python(notes["activations"]):
            _merge(self._activations, activation)

    @property
    def turns(self) -> list[Turn]:
        """All, by when they were due."""
        return sorted((turn for turns in self.users.values() for turn in turns), key=lambda turn: turn.due)

    @property
    def activations(self) -> list[Activation]:
        """All that were seen."""
        return list(self._activations.values())

    def _add(self, turn: Turn) -> None:
        if self._is_full and turn.user_id not in self.users:
            self.left_out += 1
            return
        self.users[turn.user_id].append(turn)
        self._count += 1
        if self._count <= self._most:
            return
        self._is_full = True
        while self._count > self._most / 2:
            _, turns = self.users.popitem()
            self._count -= len(turns)
            self.left_out += len(turns)


def _merge(activations: dict[tuple[str, str], Activation], one: Activation) -> None:
    key = one.actor_id, one.activation_id
    known = activations.get(key)
    activations[key] = known.and_(one) if known else one


def by_key(turns: Iterable[Turn]) -> dict[str, list[Turn]]:
    """Key -> the turns that clients sent under it: one, but where two clients share a key."""
    found: dict[str, list[Turn]] = defaultdict(list)
    for turn in turns:
        found[turn.turn_id].append(turn)
    return dict(found)
