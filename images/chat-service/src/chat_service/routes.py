"""HTTP in and out."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Final
from uuid import uuid4

import orjson
from daca_common.ids import Id
from daca_common.problems import FieldError, Problem
from fastapi import APIRouter, Header, Response
from fastapi.sse import format_sse_event
from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError
from starlette.responses import StreamingResponse

from chat_service.session import MAX_TEXT
from chat_service.turn import Committed, Turn, Turns

MAX_BODY: Final = 2 * 1024 * 1024
"""Bytes. 100,000 characters take 1.2 MB where a client escapes each of them (``\\ud83d\\ude00``)."""

EVENT_STREAM: Final = "text/event-stream"


def _is_unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no UTF-8 can
            raise PydanticCustomError("unicode", "not valid Unicode: a surrogate without its other half") from None
    return text


Text = Annotated[str, AfterValidator(_is_unicode)]


class MessageMetadata(BaseModel):
    """Which session a message belongs to (a new one where none is named), and when it was sent."""

    session_id: Id | None = None
    timestamp: datetime | None = None


class Message(BaseModel):
    """What a user says."""

    user_id: Id
    text: Text = Field(description=f"Up to {MAX_TEXT:,} characters; kept byte for byte.")
    metadata: MessageMetadata | None = None
    tags: list[Annotated[str, Field(max_length=128)]] | None = Field(
        None, max_length=64, description="Taken as the tutorial has them; not stored."
    )


class ReplyMetadata(BaseModel):
    """The session of the reply, and when it was committed (RFC 3339, UTC)."""

    session_id: str
    timestamp: str


class Reply(BaseModel):
    """A committed turn. ``turn_id`` is the Idempotency-Key under which a retry gets the same reply."""

    user_id: str
    reply: str
    metadata: ReplyMetadata
    turn_id: str
    sequence: int = Field(description="Counts the user's turns.")


class Cleared(BaseModel):
    """The answer to a cleared history."""

    status: str
    user_id: str


def router(turns: Turns) -> APIRouter:
    """The routes of the chat API."""
    api = APIRouter()

    @api.get("/")
    async def root() -> dict[str, str]:
        """Welcome."""
        return {"message": "Welcome to the DACA Chat Service! Access /docs for the API documentation."}

    @api.post(
        "/chat/",
        response_model=Reply,
        responses={200: {"content": {EVENT_STREAM: {}}, "description": "The reply, or its events as they come."}},
    )
    async def chat(
        message: Message,
        idempotency_key: Annotated[Id | None, Header()] = None,
        accept: Annotated[str, Header()] = "*/*",
    ) -> Response:
        """Says something. With ``Accept: text/event-stream`` the reply comes in events: ``token`` (``{text}``) as the
        model writes, ``restart`` (discard what was shown), and at the end ``message`` (what this route answers
        otherwise, sent after the commit) or ``error`` (a problem)."""
        turn = _turn(message, idempotency_key)
        if EVENT_STREAM in accept:
            return StreamingResponse(
                _events(turns, turn), media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"}
            )
        committed = await turns.take(turn)
        headers = {"Idempotency-Replayed": "true"} if committed.replayed else None
        return Response(_reply(turn, committed), headers=headers, media_type="application/json")

    @api.delete("/chat/{user_id}/history")
    async def clear_history(user_id: Id) -> Cleared:
        """Forgets the conversation. The transcript keeps what was said."""
        await turns.clear_history(user_id)
        return Cleared(status="success", user_id=user_id)

    return api


def _turn(message: Message, idempotency_key: str | None) -> Turn:
    if not message.text.strip():
        raise Problem(400, "Message text cannot be empty", errors=[_text_error("Message text cannot be empty")])
    if len(message.text) > MAX_TEXT:
        detail = f"The text has {len(message.text):,} characters; up to {MAX_TEXT:,} are taken. Send it in parts."
        raise Problem(413, detail, kind="/problems/too-large", errors=[_text_error(detail)])
    session_id = message.metadata.session_id if message.metadata else None
    asked = f"{session_id or ''}\n{message.text}"
    return Turn(
        user_id=message.user_id,
        turn_id=idempotency_key or uuid4().hex,
        session_id=session_id or str(uuid4()),
        text=message.text,
        fingerprint=hashlib.sha256(asked.encode()).hexdigest()[:32],
    )


def _text_error(detail: str) -> FieldError:
    return {"field": "text", "detail": detail}


def _reply(turn: Turn, committed: Committed) -> bytes:
    reply = Reply(
        user_id=turn.user_id,
        reply=committed.reply,
        metadata=ReplyMetadata(session_id=committed.session_id, timestamp=committed.occurred_at),
        turn_id=committed.turn_id,
        sequence=committed.sequence,
    )
    return reply.model_dump_json().encode()


class _Stream:
    """A turn's events on their way to a client; the last one is followed by ``None``."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, event: str, data: bytes) -> None:
        self.events.put_nowait(format_sse_event(event=event, data_str=data.decode()))

    def token(self, text: str) -> None:
        self.send("token", orjson.dumps({"text": text}))

    def restart(self) -> None:
        self.send("restart", b"{}")


async def _events(turns: Turns, turn: Turn) -> AsyncIterator[bytes]:
    stream = _Stream()

    async def take() -> None:
        try:
            stream.send("message", _reply(turn, await turns.take(turn, stream)))
        except Problem as problem:
            stream.send("error", bytes(problem.response().body))
        finally:
            stream.events.put_nowait(None)

    # A task of its own: a client that hangs up must not cut a turn between its commit and its end.
    task = asyncio.create_task(take())
    while (event := await stream.events.get()) is not None:
        yield event
    await task
