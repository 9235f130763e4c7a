"""What an event does: its turn goes into the transcript, and its user's summary is due."""

import asyncio
import logging
from typing import Final, Literal

from daca_common.conversation_updated import CloudEvent, ConversationUpdated
from daca_common.dapr import DaprError, DaprUnavailable
from pydantic import ValidationError

from agent_memory_service.documents import Contended, LaterVersion
from agent_memory_service.summaries import Summaries
from agent_memory_service.transcripts import Appended, Transcripts, Unstorable

MAX_EVENT: Final = 2 * 1024 * 1024
"""Bytes. Two texts of 100,000 characters take 1.2 MB where each character is escaped; as a dead letter an event takes a
third more, which has to fit the sidecar's 4 MiB, too."""
HANDLE_SECONDS: Final = 20.0
"""Less than the ``processingTimeout`` after which Dapr delivers an event a second time."""

Outcome = Literal["SUCCESS", "RETRY", "DROP"]
"""For the sidecar: done with it, deliver it again, or put it on the dead-letter topic."""

_log = logging.getLogger(__name__)


class Malformed(Exception):
    """No event; ``errors`` say why without showing what a user said."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def parse(body: bytes | None) -> ConversationUpdated:
    """The event in a CloudEvent; ``None`` is one of more than :data:`MAX_EVENT` bytes.

    Raises:
        Malformed: there is none.
    """
    if body is None:
        raise Malformed([f"larger than {MAX_EVENT:,} bytes"])
    try:
        return CloudEvent.model_validate_json(body).data
    except ValidationError as error:
        raise Malformed(
            [
                f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
                for item in error.errors(include_input=False, include_url=False)
            ]
        ) from None


class Events:
    """Takes events, also one that is delivered again while it is at work: that one waits for the first."""

    def __init__(self, transcripts: Transcripts, summaries: Summaries) -> None:
        self._transcripts = transcripts
        self._summaries = summaries
        self._at_work: dict[ConversationUpdated, asyncio.Task[Outcome]] = {}

    async def take(self, event: ConversationUpdated) -> Outcome:
        """Handles an event; what is to become of it."""
        task = self._at_work.get(event)
        if task is None:
            task = self._at_work[event] = asyncio.create_task(self._take(event))
            task.add_done_callback(lambda _: self._at_work.pop(event))
        return await asyncio.shield(task)  # who hangs up does not take the others along

    async def _take(self, event: ConversationUpdated) -> Outcome:
        try:
            async with asyncio.timeout(HANDLE_SECONDS):
                if await self._transcripts.append(event) is not Appended.ERASED:
                    # Also for one that was there: what came before may have ended between the two.
                    await self._summaries.note(event)
        except Unstorable:
            _log.warning("event dropped", extra={"errors": ["data.sequence: many other turns have this number"]})
            return "DROP"
        except (DaprError, DaprUnavailable, Contended, LaterVersion, TimeoutError) as error:
            cause = "the store is full" if isinstance(error, DaprError) and error.store_full else str(error)
            said = {"error": cause or type(error).__name__}
            _log.warning("event not stored, to be delivered again", extra=said)
            return "RETRY"
        return "SUCCESS"
