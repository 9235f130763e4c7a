"""What an event does: its turn goes into the transcript, and its user's summary is due."""

import asyncio
import logging
from typing import Final, Literal

from daca_common.conversation_updated import CloudEvent, ConversationUpdated
from daca_common.dapr import DaprError, DaprUnavailable
from pydantic import ValidationError

from agent_memory_service.documents import Contended, LaterVersion
from agent_memory_service.summaries import Summaries
from agent_memory_service.transcripts import Appended, Transcripts

MAX_EVENT: Final = 2 * 1024 * 1024
"""Bytes. Two texts of 100,000 characters take 1.2 MB where each character is escaped; as a dead letter an event takes a
third more, which has to fit the sidecar's 4 MiB, too."""
HANDLE_SECONDS: Final = 20.0
"""Less than the ``processingTimeout`` after which Dapr delivers an event a second time."""
GATHER_SECONDS: Final = 0.25
"""How long an event waits for others, whose documents are read and written in the same requests."""
GATHERED: Final = 12
"""Events that wait for no more; the sidecar has more at work (``dapr.pubsub.concurrency``)."""

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
    """Takes events, those that come at the same time together: what they add to a page is one write, and what they read
    and write besides goes to the store in the same requests. One that is delivered again while it is at work waits for
    the first."""

    def __init__(self, transcripts: Transcripts, summaries: Summaries) -> None:
        self._transcripts = transcripts
        self._summaries = summaries
        self._at_work: dict[ConversationUpdated, asyncio.Future[Outcome]] = {}
        self._gathered: list[ConversationUpdated] = []
        self._departure: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, event: ConversationUpdated) -> Outcome:
        """Handles an event; what is to become of it."""
        outcome = self._at_work.get(event)
        if outcome is None:
            loop = asyncio.get_running_loop()
            outcome = self._at_work[event] = loop.create_future()
            self._gathered.append(event)
            if len(self._gathered) == 1:
                self._departure = loop.call_later(GATHER_SECONDS, self._depart)
            elif len(self._gathered) == GATHERED:
                self._depart()
        return await asyncio.shield(outcome)  # who hangs up does not take the others along

    def _depart(self) -> None:
        """Begins to handle what has come."""
        if self._departure is not None:
            self._departure.cancel()
        by_place: dict[object, list[ConversationUpdated]] = {}
        for event in self._gathered:
            by_place.setdefault(self._transcripts.place(event), []).append(event)
        self._gathered = []
        for events in by_place.values():
            task = asyncio.create_task(self._handle(events))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _handle(self, events: list[ConversationUpdated]) -> None:
        outcomes: list[Outcome] = ["RETRY"] * len(events)
        try:
            outcomes = await self._store(events)
        except Exception:  # noqa: BLE001 - whatever it is, an event is owed: the sidecar delivers it again
            _log.exception("events not stored, to be delivered again")
        finally:
            for event, outcome in zip(events, outcomes, strict=True):
                self._at_work.pop(event).set_result(outcome)

    async def _store(self, events: list[ConversationUpdated]) -> list[Outcome]:
        try:
            async with asyncio.timeout(HANDLE_SECONDS):
                appended = await self._transcripts.append(*events)
                # Also of those that were there: what came before may have ended between the two.
                due = [
                    self._summaries.note(event)
                    for event, what in zip(events, appended, strict=True)
                    if what in {Appended.NEW, Appended.KNOWN}
                ]
                await asyncio.gather(*due)
        except (DaprError, DaprUnavailable, Contended, LaterVersion, TimeoutError) as error:
            cause = "the store is full" if isinstance(error, DaprError) and error.store_full else str(error)
            said = {"error": cause or type(error).__name__, "events": len(events)}
            _log.warning("events not stored, to be delivered again", extra=said)
            return ["RETRY"] * len(events)
        if Appended.UNSTORABLE in appended:
            _log.warning("event dropped", extra={"errors": ["data.sequence: many other turns have this number"]})
        return ["DROP" if what is Appended.UNSTORABLE else "SUCCESS" for what in appended]
