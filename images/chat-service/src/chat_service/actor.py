"""``UserSessionActor``: a user's session as a Dapr virtual actor.

The actor never calls the model: Dapr serialises the methods of an actor, and a drain or a rebalance would cut the call.
Its timer only starts the task that does. What the methods take and answer is in :mod:`chat_service.protocol`.
"""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from daca_common.dapr import DaprError, DaprUnavailable
from dapr.actor import Actor, ActorId, ActorInterface, actormethod
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.actor.runtime.state_manager import ActorStateManager
from pydantic import ValidationError

from chat_service import sessions
from chat_service.protocol import Invalid
from chat_service.session import Session, SessionHost
from chat_service.sessions import Given, Method, Told

SUMMARY_TIMER: Final = "summarize"
SUMMARY_DELAY: Final = timedelta(seconds=1)
ONCE: Final[Any] = None
"""No period. The SDK's types want one, Dapr does not."""

_log = logging.getLogger(__name__)


class UserSessionActorInterface(ActorInterface):
    """The actor's methods as Dapr knows them. Each takes one JSON object and answers JSON."""

    @actormethod(name=sessions.BEGIN.name)
    @abstractmethod
    async def begin_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.RENEW.name)
    @abstractmethod
    async def renew_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.COMPLETE.name)
    @abstractmethod
    async def complete_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.ABANDON.name)
    @abstractmethod
    async def abandon_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.GET.name)
    @abstractmethod
    async def get_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.CANCEL.name)
    @abstractmethod
    async def cancel_turn(self, arguments: object) -> object: ...

    @actormethod(name=sessions.ADD.name)
    @abstractmethod
    async def add_message(self, arguments: object) -> object: ...

    @actormethod(name=sessions.HISTORY.name)
    @abstractmethod
    async def get_conversation_history(self) -> object: ...

    @actormethod(name=sessions.CLEAR.name)
    @abstractmethod
    async def clear_history(self) -> object: ...

    @actormethod(name=sessions.ERASE.name)
    @abstractmethod
    async def erase(self) -> object: ...

    @actormethod(name=sessions.SUMMARIZE.name)
    @abstractmethod
    async def set_summary(self, arguments: object) -> object: ...

    @actormethod(name=sessions.PUBLISH.name)
    @abstractmethod
    async def publish_events(self) -> object: ...

    @actormethod(name=sessions.MEMORY_CHANGED.name)
    @abstractmethod
    async def memory_changed(self) -> object: ...

    @actormethod(name=sessions.LOCATE.name)
    @abstractmethod
    async def locate(self) -> object: ...


class _NoState(ActorStateManager[Any]):
    """In the place of the SDK's keeping of state, of no use here (:mod:`chat_service.store`), one for all.

    An actor's own one refers back to it: a deactivated actor, its session and its document would stay in memory until
    Python looks for cycles everywhere, which it seldom does.
    """

    def __init__(self) -> None:
        pass

    def set_state_context(self, _: object) -> None:
        pass

    async def clear_cache(self) -> None:
        pass

    async def save_state(self) -> None:
        pass


_NO_STATE: Final = _NoState()


class UserSessionActor(Actor, UserSessionActorInterface):
    """The actor: arguments checked, then handed to the :class:`Session` of its user."""

    def __init__(
        self, ctx: ActorRuntimeContext, actor_id: ActorId, host: SessionHost, summarize: Callable[[str], None]
    ) -> None:
        """``summarize`` starts the making of a user's running summary, and returns at once."""
        super().__init__(ctx, actor_id)
        self._state_manager = _NO_STATE
        self._host = host
        self._summarize = summarize
        self._user_id: str = actor_id.id
        self._arming: asyncio.Task[None] | None = None

    async def _on_activate(self) -> None:
        await self._activate()

    async def _activate(self) -> Session:
        session = await self._host.activate(self._user_id)
        session.arm_summary = self._arm
        if await session.summary_due():
            self._arm()
        return session

    async def _on_deactivate(self) -> None:
        self._host.deactivate(self._user_id)

    async def begin_turn(self, arguments: object) -> object:
        return await self._checked(sessions.BEGIN, arguments)

    async def renew_turn(self, arguments: object) -> object:
        return await self._checked(sessions.RENEW, arguments)

    async def complete_turn(self, arguments: object) -> object:
        return await self._checked(sessions.COMPLETE, arguments)

    async def abandon_turn(self, arguments: object) -> object:
        return await self._checked(sessions.ABANDON, arguments)

    async def get_turn(self, arguments: object) -> object:
        return await self._checked(sessions.GET, arguments)

    async def cancel_turn(self, arguments: object) -> object:
        return await self._checked(sessions.CANCEL, arguments)

    async def add_message(self, arguments: object) -> object:
        return await self._checked(sessions.ADD, arguments)

    async def get_conversation_history(self) -> object:
        return await self._checked(sessions.HISTORY, {})

    async def clear_history(self) -> object:
        return await self._checked(sessions.CLEAR, {})

    async def erase(self) -> object:
        return await self._checked(sessions.ERASE, {})

    async def set_summary(self, arguments: object) -> object:
        return await self._checked(sessions.SUMMARIZE, arguments)

    async def publish_events(self) -> object:
        return await self._checked(sessions.PUBLISH, {})

    async def memory_changed(self) -> object:
        return await self._checked(sessions.MEMORY_CHANGED, {})

    async def locate(self) -> object:
        return await self._checked(sessions.LOCATE, {})

    async def _checked(self, method: Method[Given, Told], arguments: object) -> Told | Invalid:
        # Its session may have ended without it: it had moved, and has come back.
        session = self._host.find(self._user_id) or await self._activate()
        try:
            parsed = method.takes.model_validate(arguments)
        except ValidationError as error:
            return session.invalid(
                [
                    {"field": ".".join(str(part) for part in item["loc"]) or "body", "detail": item["msg"]}
                    for item in error.errors(include_input=False)
                ]
            )
        return await method.do(session, parsed)

    def _arm(self) -> None:
        """Sets the timer: the running summary is due. One that is set already fires all the same."""
        if self._arming is None:
            self._arming = asyncio.create_task(self._set_timer())

    async def _set_timer(self) -> None:
        try:
            await self.register_timer(SUMMARY_TIMER, self._on_timer, None, SUMMARY_DELAY, ONCE)
        except (DaprError, DaprUnavailable) as error:
            _log.info("timer not set; the next turn tries again", extra={"error": str(error)})
            self._arming = None

    async def _on_timer(self, _: Any) -> None:
        self._arming = None
        self._summarize(self._user_id)
