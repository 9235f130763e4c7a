"""``UserSessionActor``: a user's session as a Dapr virtual actor.

The actor never calls the model: Dapr serialises the methods of an actor, and a drain or a rebalance would cut the call.

Every answer is a 200 with a ``status``: a resiliency policy retries what an actor raises, so what is part of the
protocol (busy, stale, replayed, invalid) must not look like a failure.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dapr.actor import Actor, ActorId, ActorInterface, actormethod
from dapr.actor.runtime.context import ActorRuntimeContext
from pydantic import ValidationError

from chat_service.session import AddMessage, Answer, Arguments, BeginTurn, CompleteTurn, Session, SessionHost, TurnRef

A = TypeVar("A", bound=Arguments)


class UserSessionActorInterface(ActorInterface):
    """The actor's methods as Dapr knows them. Each takes one JSON object and answers JSON."""

    @actormethod(name="BeginTurn")
    @abstractmethod
    async def begin_turn(self, arguments: dict[str, Any]) -> Answer: ...

    @actormethod(name="RenewTurn")
    @abstractmethod
    async def renew_turn(self, arguments: dict[str, Any]) -> Answer: ...

    @actormethod(name="CompleteTurn")
    @abstractmethod
    async def complete_turn(self, arguments: dict[str, Any]) -> Answer: ...

    @actormethod(name="AbandonTurn")
    @abstractmethod
    async def abandon_turn(self, arguments: dict[str, Any]) -> Answer: ...

    @actormethod(name="AddMessage")
    @abstractmethod
    async def add_message(self, arguments: dict[str, Any]) -> Answer: ...

    @actormethod(name="GetConversationHistory")
    @abstractmethod
    async def get_conversation_history(self) -> list[Answer]: ...

    @actormethod(name="ClearHistory")
    @abstractmethod
    async def clear_history(self) -> Answer: ...


class UserSessionActor(Actor, UserSessionActorInterface):
    """The actor: arguments checked, then handed to the :class:`Session` of its user."""

    def __init__(self, ctx: ActorRuntimeContext, actor_id: ActorId, host: SessionHost) -> None:
        super().__init__(ctx, actor_id)
        self._host = host
        self._user_id: str = actor_id.id
        self._session: Session

    async def _on_activate(self) -> None:
        self._session = await self._host.activate(self._user_id)

    async def _on_deactivate(self) -> None:
        self._host.deactivate(self._user_id)

    async def begin_turn(self, arguments: dict[str, Any]) -> Answer:
        return await self._checked(BeginTurn, arguments, self._session.begin)

    async def renew_turn(self, arguments: dict[str, Any]) -> Answer:
        return await self._checked(TurnRef, arguments, self._session.renew)

    async def complete_turn(self, arguments: dict[str, Any]) -> Answer:
        return await self._checked(CompleteTurn, arguments, self._session.complete)

    async def abandon_turn(self, arguments: dict[str, Any]) -> Answer:
        return await self._checked(TurnRef, arguments, self._session.abandon)

    async def add_message(self, arguments: dict[str, Any]) -> Answer:
        return await self._checked(AddMessage, arguments, self._session.add_message)

    async def get_conversation_history(self) -> list[Answer]:
        return await self._session.history()

    async def clear_history(self) -> Answer:
        return await self._session.clear()

    async def _checked(self, model: type[A], arguments: object, method: Callable[[A], Awaitable[Answer]]) -> Answer:
        try:
            parsed = model.model_validate(arguments)
        except ValidationError as error:
            return self._session.invalid(
                [
                    {"field": ".".join(str(part) for part in item["loc"]) or "body", "detail": item["msg"]}
                    for item in error.errors(include_input=False)
                ]
            )
        return await method(parsed)
