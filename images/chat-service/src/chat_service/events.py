"""Publishing what was committed: at least once, in the order of a user's turns, off the path of the answer.

An event is sent from the outbox that its turn was committed with, so a broker that is down delays it and loses nothing.
That it was sent is written down with the session's next write; none is made for it. So what was sent last is sent again
by the next activation. Consumers drop duplicates by ``event_id`` and order by ``sequence``.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from daca_common.backoff import Backoff
from daca_common.conversation_updated import cloud_event, event_id
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.logs import pseudonym, traceparent

from chat_service.document import Exchange
from chat_service.session import Session
from chat_service.store import ActiveElsewhere

_log = logging.getLogger(__name__)

AT_ONCE: Final = 32
"""Publications under way. A broker that hangs holds up so many and no more."""

TIMEOUT_SECONDS: Final = 10.0

DRAIN_SECONDS: Final = 5.0
"""What a process that goes gives to its events; others see to what is left."""


class EventPublisher:
    """Publishes the outboxes of the sessions of this process; one task a session while it has something to send."""

    def __init__(self, dapr: DaprClient, pubsub: str, topic: str, left: Callable[[str], None]) -> None:
        """``dapr`` is used for nothing else, or publications and turns would wait for each other's connections.
        ``left`` is told of a user whose session is gone while there is something to send."""
        self._dapr = dapr
        self._pubsub = pubsub
        self._topic = topic
        self._left = left
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[Session, asyncio.Task[None]] = {}

    def start(self, session: Session) -> None:
        """Sees to a session's outbox; a task that is at it already goes on."""
        if session not in self._tasks:
            self._tasks[session] = asyncio.create_task(self._run(session))

    async def drain(self) -> None:
        """Returns when everything is sent, or time is over: the journal knows of the rest."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=DRAIN_SECONDS)
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, session: Session) -> None:
        traceparent.set(None)  # the request that started the task is over long before it
        backoff = Backoff(0.2, 2.0)
        try:
            while unsent := await self._unsent(session):
                try:
                    await self._publish(session, unsent[0])
                except (DaprError, DaprUnavailable) as error:
                    told = {"user": pseudonym(session.user_id), "error": str(error)}
                    _log.warning("event not published, will retry", extra=told)
                    await asyncio.sleep(backoff.next())
                else:
                    session.sent(unsent[0].turn_id)
                    backoff.reset()
        finally:
            # Here and not in a callback: an event that is committed from now on must find no task.
            del self._tasks[session]
        session.all_sent()

    async def _unsent(self, session: Session) -> list[Exchange]:
        """What is left to send of a session that is active; one that is not is left to where it lives now."""
        try:
            unsent = await session.unsent()
        except (ActiveElsewhere, DaprError, DaprUnavailable):
            unsent = []
            self._left(session.user_id)
        else:
            if unsent and not session.active:
                self._left(session.user_id)
                return []
        return unsent

    async def _publish(self, session: Session, exchange: Exchange) -> None:
        event = cloud_event(
            {
                "event_type": "ConversationUpdated",
                "event_id": event_id(session.user_id, exchange.sequence, exchange.turn_id),
                "turn_id": exchange.turn_id,
                "sequence": exchange.sequence,
                "occurred_at": exchange.occurred_at,
                "user_id": session.user_id,
                "session_id": exchange.session_id,
                "user_message": exchange.user_text,
                "assistant_reply": exchange.reply_text,
            }
        )
        async with self._at_once:
            await self._dapr.publish(self._pubsub, self._topic, event, timeout_seconds=TIMEOUT_SECONDS)
