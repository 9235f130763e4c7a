"""A user's session, wherever it is active: in this very process, which is asked without a detour, else through Dapr.

The detour is two sidecars and two event loops for each call. Skipping it is safe: the session's lock, ``turn_no`` and
the store's ETag hold whoever calls, and the sidecar refuses the write of an actor that has moved; then the call goes
through Dapr after all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from daca_common.backoff import Backoff
from daca_common.dapr import DaprClient, DaprUnavailable
from pydantic import TypeAdapter, ValidationError

from chat_service import protocol
from chat_service.protocol import Arguments
from chat_service.session import Session, SessionHost
from chat_service.store import ACTOR_TYPE, ActiveElsewhere

CALL_SECONDS: Final = 10.0
"""A call whose caller does not repeat it. Placement can hold one for as long as a round takes."""

REPEATED_SECONDS: Final = 1.0
"""The first of the calls of a caller that repeats it, each of which may take longer than the last. One that reaches a
sidecar whose placement client has just stopped is never answered (docs/moves.md): asking again costs less than waiting.
"""

Given = TypeVar("Given", bound=Arguments)
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True)
class Method(Generic[Given, Told]):
    """A method of ``UserSessionActor``: its name in Dapr, what it takes and answers, and who does it."""

    name: str
    takes: type[Given]
    answers: TypeAdapter[Told]
    do: Callable[[Session, Given], Awaitable[Told]]


BEGIN: Final[Method[protocol.BeginTurn, protocol.BeginAnswer]] = Method(
    "BeginTurn", protocol.BeginTurn, TypeAdapter(protocol.BeginAnswer), Session.begin
)
RENEW: Final[Method[protocol.TurnRef, protocol.Renewed | protocol.Lost]] = Method(
    "RenewTurn", protocol.TurnRef, TypeAdapter(protocol.Renewed | protocol.Lost), Session.renew
)
COMPLETE: Final[Method[protocol.CompleteTurn, protocol.CompleteAnswer]] = Method(
    "CompleteTurn", protocol.CompleteTurn, TypeAdapter(protocol.CompleteAnswer), Session.complete
)
ABANDON: Final[Method[protocol.TurnRef, protocol.Abandoned | protocol.Lost]] = Method(
    "AbandonTurn", protocol.TurnRef, TypeAdapter(protocol.Abandoned | protocol.Lost), Session.abandon
)
GET: Final[Method[protocol.TurnId, protocol.TurnAnswer]] = Method(
    "GetTurn", protocol.TurnId, TypeAdapter(protocol.TurnAnswer), Session.outcome
)
CANCEL: Final[Method[protocol.TurnId, protocol.TurnAnswer]] = Method(
    "CancelTurn", protocol.TurnId, TypeAdapter(protocol.TurnAnswer), Session.cancel
)
ADD: Final[Method[protocol.AddMessage, protocol.AddAnswer]] = Method(
    "AddMessage", protocol.AddMessage, TypeAdapter(protocol.AddAnswer), Session.add_message
)
HISTORY: Final[Method[protocol.NoArguments, list[protocol.Spoken]]] = Method(
    "GetConversationHistory", protocol.NoArguments, TypeAdapter(list[protocol.Spoken]), Session.history
)
CLEAR: Final[Method[protocol.NoArguments, protocol.Cleared]] = Method(
    "ClearHistory", protocol.NoArguments, TypeAdapter(protocol.Cleared), Session.clear
)
ERASE: Final[Method[protocol.NoArguments, protocol.Erased]] = Method(
    "Erase", protocol.NoArguments, TypeAdapter(protocol.Erased), Session.erase
)
SUMMARIZE: Final[Method[protocol.SetSummary, protocol.Done]] = Method(
    "SetSummary", protocol.SetSummary, TypeAdapter(protocol.Done), Session.set_summary
)
PUBLISH: Final[Method[protocol.NoArguments, protocol.Done]] = Method(
    "PublishEvents", protocol.NoArguments, TypeAdapter(protocol.Done), Session.publish_events
)
MEMORY_CHANGED: Final[Method[protocol.NoArguments, protocol.Done]] = Method(
    "MemoryChanged", protocol.NoArguments, TypeAdapter(protocol.Done), Session.memory_changed
)
LOCATE: Final[Method[protocol.NoArguments, protocol.Done]] = Method(
    "Locate", protocol.NoArguments, TypeAdapter(protocol.Done), Session.locate
)


def patience() -> Backoff:
    """Of a caller that repeats its call: how many seconds each may take."""
    return Backoff(REPEATED_SECONDS, CALL_SECONDS)


class Sessions:
    """Calls sessions by user id."""

    def __init__(self, host: SessionHost, dapr: DaprClient) -> None:
        self._host = host
        self._dapr = dapr

    def here(self, user_id: str) -> Session | None:
        """The session of a user, if it is active in this process."""
        return self._host.find(user_id)

    async def call(
        self, user_id: str, method: Method[Given, Told], arguments: Given, *, seconds: float = CALL_SECONDS
    ) -> Told:
        """Calls a user's session, which is made active somewhere if it was not. Through Dapr it may take ``seconds``.

        Raises:
            DaprError, DaprUnavailable: it could not be reached; whether the call took effect is unknown.
        """
        if (session := self._host.find(user_id)) is not None:
            try:
                return await method.do(session, arguments)
            except ActiveElsewhere:
                pass  # it has moved and nothing was written
        answer = await self._dapr.invoke_actor(
            ACTOR_TYPE,
            user_id,
            method.name,
            arguments.model_dump(mode="json", exclude_defaults=True),
            timeout_seconds=seconds,
        )
        try:
            return method.answers.validate_python(answer)
        except ValidationError as error:
            # A pod of another release, or what is between: no answer that can be gone by.
            raise DaprUnavailable(f"{method.name}: not an answer: {error.error_count()} errors") from error
