"""The running summary: what fell out of the window, made outside the turn.

The actor's timer starts it and does not wait: Dapr holds the actor for as long as a timer runs.
"""

import asyncio
import logging
from typing import Final

from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.logs import begin_trace, pseudonym, trace_id
from daca_common.model_failure import ModelFailed

from chat_service.agent import ChatAgent
from chat_service.protocol import SetSummary
from chat_service.sessions import SUMMARIZE, Sessions
from chat_service.store import ActiveElsewhere

AT_ONCE: Final = 4
"""Calls of the model. They share it, and its rate limit, with the turns."""

_log = logging.getLogger(__name__)


class Summarizer:
    """Makes the running summaries of the sessions of this process."""

    def __init__(self, sessions: Sessions, agent: ChatAgent) -> None:
        self._sessions = sessions
        self._agent = agent
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._running: dict[str, asyncio.Task[None]] = {}

    def start(self, user_id: str) -> None:
        """Starts on a user's overflow, if nobody is at it."""
        if user_id not in self._running:
            task = self._running[user_id] = asyncio.create_task(self._run(user_id))
            task.add_done_callback(lambda _: self._running.pop(user_id))

    def stop(self) -> None:
        """Gives up what runs: the overflow is still there for the next activation."""
        for task in self._running.values():
            task.cancel()

    async def _run(self, user_id: str) -> None:
        begin_trace()
        session = self._sessions.here(user_id)
        if session is None:
            return
        try:
            async with self._at_once:
                document = await session.document()
                if not (overflow := document.overflow):
                    return
                said = tuple((item.user_text, item.reply_text) for item in overflow)
                text = await self._agent.summarize(document.running_summary, said)
            summary = SetSummary(text=text, through_turn=overflow[-1].turn_no)
            await self._sessions.call(user_id, SUMMARIZE, summary)
        except (ModelFailed, ActiveElsewhere, DaprError, DaprUnavailable) as error:
            # As text, a failure of the model is its cause.
            cause = str(error) if isinstance(error, ModelFailed) else type(error).__name__
            told = {"user": pseudonym(user_id), "error": cause, "trace_id": trace_id()}
            _log.warning("running summary not made; a later turn tries again", extra=told)
