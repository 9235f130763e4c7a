"""Publishing what was committed: at least once, in the order of a user's turns, off the path of the answer.

An event is sent from the outbox that its turn was committed with, so a broker that is down delays it and loses nothing.
Consumers drop duplicates by ``event_id`` and order by ``sequence``.
"""

import asyncio
import contextlib
import logging
import random
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.logs import pseudonym, traceparent

from chat_service.document import Exchange
from chat_service.session import Session

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
"""A user's next turn writes down what was published. Where none comes for so long, a write of its own does."""

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


class EventPublisher:
    """Publishes the outboxes of the sessions of this process; one task a session while it has something to send."""

    def __init__(self, dapr: DaprClient, pubsub: str, topic: str) -> None:
        self._dapr = dapr
        self._pubsub = pubsub
        self._topic = topic
        self._tasks: dict[Session, asyncio.Task[None]] = {}
        self._draining = asyncio.Event()

    def start(self, session: Session) -> None:
        """Sees to a session's outbox; a task that is at it already goes on."""
        if session not in self._tasks:
            # The request that starts the task is over long before it; its trace context is not the events'.
            task = self._tasks[session] = asyncio.create_task(self._run(session))
            task.add_done_callback(lambda _: self._tasks.pop(session, None))

    def stop(self, session: Session) -> None:
        """Gives up a session that is deactivated; its next activation goes on from the stored outbox."""
        if (task := self._tasks.get(session)) is not None:
            task.cancel()

    async def drain(self) -> None:
        """Returns when every task is done; none waits any longer for a turn to come."""
        self._draining.set()
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _run(self, session: Session) -> None:
        traceparent.set(None)
        failures = 0
        while True:
            try:
                if await self._publish_next(session):
                    failures = 0
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), SETTLE_SECONDS)
                if await self._publish_next(session):
                    continue
                await session.mark_published()
                if not await self._waiting(session):
                    return
            except (DaprError, DaprUnavailable) as error:
                delay = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
                failures += 1
                _log.warning(
                    "event not published, will retry",
                    extra={"user": pseudonym(session.user_id), "error": str(error), "retry_seconds": delay},
                )
                await asyncio.sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311 - spreads retries, guards nothing

    async def _publish_next(self, session: Session) -> bool:
        """Publishes the oldest event not yet sent; False where there is none."""
        waiting = await self._waiting(session)
        if not waiting:
            return False
        await self._dapr.publish(self._pubsub, self._topic, cloud_event(session.user_id, waiting[0]))
        session.sent |= {waiting[0].turn_id}
        return True

    async def _waiting(self, session: Session) -> list[Exchange]:
        return [item for item in (await session.document()).outbox if item.turn_id not in session.sent]


def cloud_event(user_id: str, exchange: Exchange) -> dict[str, Any]:
    """``ConversationUpdated`` as a CloudEvent; the same exchange always makes the same one.

    ``data``: ``{event_type, event_id, turn_id, sequence, occurred_at, user_id, session_id, user_message,
    assistant_reply}``.
    """
    event_id = str(uuid5(NAMESPACE_URL, f"conversation:{user_id}/{exchange.sequence}/{exchange.turn_id}"))
    return {
        "specversion": "1.0",
        "type": "ConversationUpdated",
        "source": "chat-service",
        "id": event_id,
        "time": exchange.occurred_at,
        "datacontenttype": "application/json",
        "data": {
            "event_type": "ConversationUpdated",
            "event_id": event_id,
            "turn_id": exchange.turn_id,
            "sequence": exchange.sequence,
            "occurred_at": exchange.occurred_at,
            "user_id": user_id,
            "session_id": exchange.session_id,
            "user_message": exchange.user_text,
            "assistant_reply": exchange.reply_text,
        },
    }
