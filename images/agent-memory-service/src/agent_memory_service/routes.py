"""HTTP in and out."""

import asyncio
import logging
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import orjson
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.ids import Id
from daca_common.json_body import JSON, JsonRoute
from daca_common.logs import annotate
from daca_common.problems import Problem, limited_body
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ValidationError

from agent_memory_service.dead_letters import NEWEST, DeadLetter, DeadLetters
from agent_memory_service.documents import Contended, LaterVersion
from agent_memory_service.erasure import Erasure
from agent_memory_service.events import MAX_EVENT, Events, Malformed, Outcome, parse
from agent_memory_service.memories import Memories, Memory
from agent_memory_service.transcripts import Transcripts, Turn
from agent_memory_service.users import Place, Users

MAX_BODY: Final = 64 * 1024
"""Bytes. A memory of the longest values takes some 30 KB where a client escapes each character."""
MAX_LIMIT: Final = 1000
"""Turns of a transcript in one answer."""
MAX_SESSIONS: Final = 100
"""Sessions in one answer."""

_log = logging.getLogger(__name__)


class Initialized(BaseModel):
    """The answer to an initialised memory."""

    status: Literal["success"] = "success"
    user_id: str
    metadata: Memory


class Entry(BaseModel):
    """One message of a transcript. ``turn_id`` joins a message and its reply; ``sequence`` counts the user's turns."""

    role: Literal["user", "assistant"]
    content: str
    timestamp: datetime
    user_id: str
    turn_id: str
    sequence: int


class Conversation(BaseModel):
    """A user's transcript in a session, oldest first."""

    history: list[Entry]
    before: int | None = None
    """Where a limit was asked for: the ``before`` that asks for the turns before these; null where there are none."""


class Session(BaseModel):
    """A session of a user; ``last_turn_at`` (RFC 3339) is null where its turns have expired."""

    session_id: str
    last_turn_at: str | None


class SessionList(BaseModel):
    """A user's sessions, those that began last first; ``before`` asks for those before them, null: there are none."""

    sessions: list[Session]
    before: str | None


class Erased(BaseModel):
    """The answer to an erased user: what was removed, counted by kind."""

    status: Literal["success"] = "success"
    user_id: str
    removed: dict[str, Any]


class Handled(BaseModel):
    """What the sidecar does with an event: done with it, deliver it again, or put it on the dead-letter topic."""

    status: Outcome


class DeadLetterList(BaseModel):
    """Events that could not be handled, newest first, without their texts."""

    dead_letters: list[DeadLetter]


class WholeDeadLetter(BaseModel):
    """One of them, with the event as it came."""

    dead_letter: DeadLetter
    body: str


class Done(BaseModel):
    """A dead letter is gone: handled as an event, or deleted."""

    status: Literal["success"] = "success"
    id: str


LetterId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]


def router(
    *,
    memories: Memories,
    users: Users,
    transcripts: Transcripts,
    events: Events,
    dead_letters: DeadLetters,
    erasure: Erasure,
) -> APIRouter:
    """The routes of the service."""
    api = APIRouter(route_class=JsonRoute)

    @api.get("/")
    async def root() -> dict[str, str]:
        """Welcome."""
        return {"message": "Welcome to the DACA Agent Memory Service! Access /docs for the API documentation."}

    _memories(api, memories, erasure)
    _sessions(api, users, transcripts)
    _conversations(api, transcripts)
    _deliveries(api, events, dead_letters)
    _dead_letters(api, dead_letters, events)
    return api


def _memories(api: APIRouter, memories: Memories, erasure: Erasure) -> None:
    @api.get("/memories/{user_id}")
    async def memory(user_id: Id) -> Memory:
        """What is known of a user; of an unknown one, what holds for a new user."""
        annotate(user=user_id)
        return await memories.get(user_id)

    @api.post("/memories/{user_id}/initialize")
    async def initialize(user_id: Id, memory: Memory) -> Initialized:
        """Sets what is known of a user, whatever was known before."""
        annotate(user=user_id)
        await memories.initialize(user_id, memory)
        return Initialized(user_id=user_id, metadata=memory)

    @api.delete("/memories/{user_id}")
    async def erase(user_id: Id) -> Erased:
        """Erases a user everywhere: session, memory, transcripts, dead letters. What comes late of before is not kept.

        Where it could not finish (503), sending it again finishes it.
        """
        annotate(user=user_id)
        try:
            return Erased(user_id=user_id, removed=await erasure.erase(user_id))
        except (DaprError, DaprUnavailable, Contended, ValidationError) as error:
            if isinstance(error, DaprError) and error.store_full:
                raise
            cause = type(error).__name__ if isinstance(error, ValidationError) else str(error)
            _log.warning("a user is not wholly erased", extra={"error": cause})
            detail = "The user is not wholly erased: a part of the system did not answer. Send it again to finish it."
            raise Problem(503, detail, kind="/problems/erasure-unfinished", headers={"Retry-After": "1"}) from error


def _sessions(api: APIRouter, users: Users, transcripts: Transcripts) -> None:
    @api.get("/memories/{user_id}/sessions")
    async def sessions(
        user_id: Id,
        limit: Annotated[int, Query(ge=1, le=MAX_SESSIONS)] = 20,
        before: Annotated[str | None, Query(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$")] = None,
    ) -> SessionList:
        """The sessions that a user has had, those that began last first; with `before` of an answer, those before."""
        annotate(user=user_id)
        place = Place(*(int(part) for part in before.split("."))) if before else None
        found, more = await users.sessions(user_id, limit, place)

        async def with_time(session_id: str) -> Session:
            turns = (await transcripts.read(session_id, user_id, limit=1)).turns
            return Session(session_id=session_id, last_turn_at=turns[-1]["occurred_at"] if turns else None)

        listed = await asyncio.gather(*(with_time(session_id) for session_id in found))
        return SessionList(sessions=listed, before=f"{more.page}.{more.at}" if more else None)


def _conversations(api: APIRouter, transcripts: Transcripts) -> None:
    @api.get("/conversations/{session_id}", response_model=Conversation)
    async def conversation(
        session_id: Id,
        user_id: Id | None = None,
        limit: Annotated[int | None, Query(ge=1, le=MAX_LIMIT)] = None,
        before: Annotated[int | None, Query(ge=1, lt=2**53)] = None,
    ) -> Response:
        """A session's transcript, oldest first; an empty one for a session that nobody has heard of.

        It is that of the user who wrote first into the session, or of `user_id`. With `limit` it is the last so many
        turns, with `before` only those whose sequence is less; the answer's `before` asks for the turns before it.
        """
        annotate(session=session_id)
        user_id = user_id or await transcripts.first_user(session_id)
        if user_id is None:
            page: tuple[list[Turn], int | None] = ([], None)
        else:
            annotate(user=user_id)
            page = await transcripts.read(session_id, user_id, limit=limit, before=before)
        turns, earlier = page
        answer: dict[str, Any] = {"history": [entry for turn in turns for entry in _entries(user_id or "", turn)]}
        if limit is not None:
            answer["before"] = earlier
        return Response(orjson.dumps(answer), media_type=JSON)


def _deliveries(api: APIRouter, events: Events, dead_letters: DeadLetters) -> None:
    @api.post("/conversations")
    async def conversation_updated(request: Request) -> Handled:
        """Takes a CloudEvent of topic ``conversations`` from the sidecar, whose data is a ``ConversationUpdated``.

        Always 200: a malformed event will not mend by being sent again, so it is dropped to the dead-letter topic.
        """
        try:
            event = parse(await limited_body(request, MAX_EVENT))
        except Malformed as malformed:
            _log.warning("event dropped", extra={"errors": malformed.errors})
            return Handled(status="DROP")
        annotate(user=event.user_id, session=event.session_id, turn=event.turn_id)
        return Handled(status=await events.take(event))

    @api.post("/dead-letters")
    async def dead_letter(request: Request) -> Handled:
        """Takes from the sidecar an event of topic ``conversations-dead-letter``: one that could not be handled."""
        try:
            await dead_letters.add(await _beginning(request))
        except (DaprError, DaprUnavailable, Contended, LaterVersion) as error:
            _log.warning("dead letter not stored, to be delivered again", extra={"error": str(error)})
            return Handled(status="RETRY")
        return Handled(status="SUCCESS")


def _dead_letters(api: APIRouter, dead_letters: DeadLetters, events: Events) -> None:
    async def found(letter_id: str) -> tuple[DeadLetter, bytes]:
        letter = await dead_letters.get(letter_id)
        if letter is None:
            raise _no_letter()
        return letter

    @api.get("/dead-letters")
    async def listed(limit: Annotated[int, Query(ge=1, le=NEWEST)] = 100) -> DeadLetterList:
        """The events that could not be handled, newest first, without their texts."""
        return DeadLetterList(dead_letters=await dead_letters.newest(limit))

    @api.get("/dead-letters/{letter_id}")
    async def read(letter_id: LetterId) -> WholeDeadLetter:
        """An event that could not be handled, as it came."""
        letter, body = await found(letter_id)
        return WholeDeadLetter(dead_letter=letter, body=body.decode(errors="replace"))

    @api.post("/dead-letters/{letter_id}/replay")
    async def replay(letter_id: LetterId) -> Done:
        """Handles an event again, and removes it where that succeeds."""
        _, body = await found(letter_id)
        await _replay(body, events)
        await dead_letters.remove(letter_id)
        return Done(id=letter_id)

    @api.delete("/dead-letters/{letter_id}")
    async def delete(letter_id: LetterId) -> Done:
        """Removes an event that could not be handled."""
        if not await dead_letters.remove(letter_id):
            raise _no_letter()
        return Done(id=letter_id)


async def _replay(body: bytes, events: Events) -> None:
    try:
        event = parse(body)
    except Malformed as malformed:
        detail = f"The event is malformed and stays so: {malformed}. Delete it when you have read it."
        raise Problem(422, detail, kind="/problems/malformed-event") from malformed
    annotate(user=event.user_id, session=event.session_id, turn=event.turn_id)
    status = await events.take(event)
    if status == "DROP":
        detail = "The transcript has no place for this event: many other turns of its user have the same number."
        raise Problem(422, detail, kind="/problems/unstorable-event")
    if status == "RETRY":
        detail = "The event could not be stored; the log says why. It is still here: send this again."
        raise Problem(503, detail, kind="/problems/store-unavailable", headers={"Retry-After": "1"})


async def _beginning(request: Request) -> bytes:
    """The body; of one that is too large to be an event no more than tells that it is."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        if size <= MAX_EVENT:
            chunks.append(chunk)
            size += len(chunk)
    return b"".join(chunks)


def _no_letter() -> Problem:
    detail = "There is no dead letter with this id (any more); GET /dead-letters lists them."
    return Problem(404, detail, kind="/problems/no-dead-letter")


def _entries(user_id: str, turn: Turn) -> tuple[dict[str, object], dict[str, object]]:
    shared = {
        "timestamp": turn["occurred_at"],
        "user_id": user_id,
        "turn_id": turn["turn_id"],
        "sequence": turn["sequence"],
    }
    return (
        {"role": "user", "content": turn["user_message"]} | shared,
        {"role": "assistant", "content": turn["assistant_reply"]} | shared,
    )
