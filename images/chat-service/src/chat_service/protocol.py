"""What is said between a turn and its session: the arguments of ``UserSessionActor``'s methods, and their answers.

Answers are told apart by ``status`` and are never HTTP errors: a resiliency policy repeats what an actor raises, so
what is part of the protocol (busy, stale, replayed) must not look like a failure. Each names the ``host`` (the pod),
its ``address`` and the ``activation_id``: without them nobody can count double activations or tell where an actor
lives.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from daca_common.completion import Finish
from daca_common.ids import Id
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

MAX_TEXT: Final = 100_000
"""Characters of a message or a reply."""

MAX_SUMMARY: Final = 4000
"""Characters of the running summary; it is part of every turn's instructions."""

Text = Annotated[str, Field(max_length=MAX_TEXT)]


def fingerprint(text: str) -> str:
    """What is kept of a message to tell whether a retry asks the same thing: half of its SHA-256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Arguments(BaseModel):
    """What a method is called with: one JSON object; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoArguments(Arguments):
    """For methods that take nothing."""


NOTHING: Final = NoArguments()


class TurnId(Arguments):
    """``GetTurn`` and ``CancelTurn``."""

    turn_id: Id


class TurnRef(Arguments):
    """``RenewTurn`` and ``AbandonTurn``: the turn, and the lease it was granted under (empty while it waits)."""

    turn_id: Id
    lease_token: str = ""
    claim: str = ""
    """Of ``BeginTurn``, for a caller that gave up before it was told its lease."""


class BeginTurn(Arguments):
    """Asks for the next turn. Times are Unix seconds."""

    turn_id: Id
    fingerprint: str = ""
    """Of its text: tells whether a retry asks the same thing."""
    session_id: Id | None = None
    """The session that the client named, if it did: a retry may name the one that it was told."""
    claim: str = ""
    """Names one attempt of one caller, so that a call that Dapr delivers twice is granted once."""
    keyed: bool = True
    """Whether the id is a client's. One that was made for this request can't be known from before."""
    waits: bool = True
    """It takes a place in the line where another turn is before it."""
    arrived_at: float = 0.0
    """When the message reached the service: its place in the queue, wherever it has waited before. 0: now."""
    requeued: bool = False
    """It has waited at another activation."""
    gives_up_at: float = float("inf")
    """No lease is granted later: nobody would take it."""


class CompleteTurn(Arguments):
    """``turn_no`` as it was granted: the number this turn gets, if no other got it meanwhile."""

    turn_id: Id
    lease_token: str = ""
    turn_no: int
    session_id: Id
    user_text: Text
    reply_text: Text
    fingerprint: str = ""
    """Empty: that of the text."""
    finish_reason: Finish = "stop"
    """Why the reply ended: of the model's own, or cut at its ``length`` or by a ``content_filter``."""


class AddMessage(Arguments):
    """A commit without a turn: the tutorial's method. Ids are made where they are missing."""

    user_text: Text
    reply_text: Text
    turn_id: Id | None = None
    session_id: Id | None = None


class SetSummary(Arguments):
    """The running summary of what left the window up to ``through_turn``."""

    text: Annotated[str, Field(max_length=MAX_SUMMARY)]
    through_turn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who answers."""

    host: str
    """The pod's name."""
    address: str
    """Its IP address and port."""
    activation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedTurn(Host):
    """A turn that is in the history for good."""

    turn_id: str
    turn_no: int
    sequence: int
    session_id: str
    occurred_at: str
    reply_text: str
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """An exchange of the window."""

    user_text: str
    reply_text: str
    turn_id: str
    turn_no: int
    sequence: int
    session_id: str
    occurred_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted(Host):
    """The turn may run; its lease has to be renewed before ``lease_seconds`` are over."""

    turn_no: int
    sequence: int
    window: tuple[Spoken, ...]
    running_summary: str
    lease_token: str
    lease_seconds: float
    status: Literal["granted"] = "granted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy(Host):
    """Another turn of the user is before this one: ``place`` counts from 1. Ask again, or wait to be woken."""

    place: int
    retry_after_seconds: float
    status: Literal["busy"] = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded(Host):
    """So many messages of the user wait that no more are taken."""

    status: Literal["crowded"] = "crowded"


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp(Host):
    """The caller's time was over before the call was."""

    status: Literal["gave_up"] = "gave_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(CommittedTurn):
    """The turn is committed by this call."""

    status: Literal["committed"] = "committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed(CommittedTurn):
    """The turn was committed before."""

    status: Literal["replayed"] = "replayed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Host):
    """The turn was committed so long ago that its reply is no longer kept."""

    session_id: str
    status: Literal["expired"] = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch(Host):
    """The id was used for another message."""

    status: Literal["mismatch"] = "mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Full(Host):
    """Events can't be delivered, and no more can be kept."""

    status: Literal["full"] = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale(Host):
    """The history changed since the turn began: begin again."""

    status: Literal["stale"] = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Host):
    """The turn was cancelled, and is not committed."""

    status: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(Host):
    """The lease lasts for another ``lease_seconds``."""

    lease_seconds: float
    status: Literal["renewed"] = "renewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Host):
    """The turn has no lease (any more)."""

    status: Literal["lost"] = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned(Host):
    """The turn has given up its lease or its place."""

    status: Literal["abandoned"] = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open(Host):
    """The turn runs (``place`` 0) or waits."""

    place: int
    status: Literal["open"] = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCommitted(Host):
    """Nothing is known of the turn, so it is not committed."""

    status: Literal["not_committed"] = "not_committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared(Host):
    """The history is empty."""

    turn_no: int
    status: Literal["cleared"] = "cleared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Host):
    """``SetSummary``, ``PublishEvents``, ``Locate``: it is as was asked."""

    status: Literal["done"] = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased(Host):
    """Nothing of what the user said is left. ``sequence`` is that of their last turn; ``removed`` counts by kind."""

    sequence: int
    removed: dict[str, int]
    status: Literal["erased"] = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid(Host):
    """The arguments are wrong: ``[{field, detail}]``."""

    errors: list[dict[str, str]]
    status: Literal["invalid"] = "invalid"


BeginAnswer = Granted | Busy | Crowded | GaveUp | Replayed | Expired | Mismatch | Full | Cancelled
CompleteAnswer = Committed | Replayed | Expired | Mismatch | Full | Stale | Cancelled
AddAnswer = Committed | Replayed | Expired | Mismatch | Full
TurnAnswer = Open | Replayed | Expired | NotCommitted | Cancelled
Answer = BeginAnswer | CompleteAnswer | TurnAnswer | Renewed | Lost | Abandoned | Cleared | Done | Erased | Invalid

_answers: TypeAdapter[Answer] = TypeAdapter(Annotated[Answer, Field(discriminator="status")])


def parse(answer: Any) -> Answer:
    """An answer as it came through Dapr. Fields that a later release adds are ignored.

    Raises:
        pydantic.ValidationError: it is none.
    """
    return _answers.validate_python(answer)
