"""HTTP in and out. A request of a user goes to the process where the user's session lives, or is handled here."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid4, uuid5

from daca_common.accept import preferred
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.ids import Id
from daca_common.json_body import JSON, JsonRoute
from daca_common.logs import annotate
from daca_common.problems import FieldError, Problem, invalid
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_service import protocol
from chat_service.admission import Admission
from chat_service.memory import MemoryClient, SessionList
from chat_service.open_turns import OpenTurns, overloaded, reply_body
from chat_service.protocol import MAX_TEXT, NOTHING, TurnId
from chat_service.relay import ARRIVED, RELAYED, TURN, Incoming, Outgoing, Relay
from chat_service.sessions import CANCEL, CLEAR, GET, Sessions
from chat_service.turn import KEY, Turn, WhenBusy, cancelled, client_gone, refuse, unreachable

MAX_BODY: Final = 2 * 1024 * 1024
"""Bytes. 100,000 characters take 1.2 MB where a client escapes each of them (``\\ud83d\\ude00``)."""

MAX_SESSIONS: Final = 100
"""Conversations in one answer."""

EVENT_STREAM: Final = "text/event-stream"

STREAMED: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Headers of a stream: nginx, and what follows it, would hold events back to send more at once."""


_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"(?:;.*)?')


def _unquoted(key: object) -> object:
    """The text of a string of structured fields (RFC 9651), as the IETF draft has a key; its parameters mean nothing.
    Most clients send a key bare."""
    if not isinstance(key, str) or not key.startswith('"'):
        return key
    quoted = _STRING.fullmatch(key)
    if quoted is None:
        raise PydanticCustomError(
            "key", 'bare, or one string of structured fields: in double quotes, with a backslash before " and \\ alone'
        )
    return re.sub(r"\\(.)", r"\1", quoted[1])


Key = Annotated[Id, BeforeValidator(_unquoted)]


class MessageMetadata(BaseModel):
    """Which session a message belongs to, and when it was sent."""

    session_id: Id | None = Field(None, description="A new session where none is named; the answer names it.")
    timestamp: datetime | None = Field(
        None, description="Taken as the tutorial has it; not stored. The answer's is when the turn was committed."
    )


class Message(BaseModel):
    """What a user says."""

    user_id: Id
    text: str = Field(description=f"Up to {MAX_TEXT:,} characters; kept byte for byte.")
    metadata: MessageMetadata | None = None
    tags: list[Annotated[str, Field(max_length=128)]] | None = Field(
        None,
        max_length=64,
        description="Taken as the tutorial has them: up to 64 texts; not stored, nothing uses them.",
    )
    when_busy: WhenBusy | None = Field(
        None, description="What happens where another message of the user is being answered; by default as it is set."
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
    finish_reason: str | None = Field(
        None,
        description="Only of a reply that was cut: `length` or `content_filter`. The reply is what there is of it.",
    )


class Cleared(BaseModel):
    """The answer to a cleared history."""

    status: str
    user_id: str


class TurnState(BaseModel):
    """What became of a turn. Only a committed one has a ``reply``; ``place`` counts the turns before an open one."""

    turn_id: str
    status: Literal["open", "committed", "not_committed"]
    place: int | None = None
    reply: Reply | None = None


TURN_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {EVENT_STREAM: {}}, "description": "The reply, or its events as they come."}
}

R = TypeVar("R")


class RefuseEarly:
    """Answers a message that this process can't take on before anything is done for it, its body unread.

    It has no line of its own in the log: under overload the refused are most of the messages.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission
        self._refused = overloaded().response()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._admission.full and scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", "/chat/"):
            self._admission.refuse()
            await self._refused(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class ChatRoutes:
    """The chat API of this process."""

    def __init__(
        self, sessions: Sessions, open_turns: OpenTurns, relay: Relay, memory: MemoryClient, when_busy: WhenBusy
    ) -> None:
        self._sessions = sessions
        self._memory = memory
        self._open_turns = open_turns
        self._relay = relay
        self._when_busy = when_busy

    def router(self) -> APIRouter:
        """Its routes."""
        api = APIRouter(route_class=JsonRoute)
        api.get("/")(self.root)
        api.post("/chat/", response_model=Reply, responses=TURN_RESPONSES)(self.chat)
        api.delete("/chat/{user_id}/history")(self.clear_history)
        api.get("/chat/{user_id}/sessions")(self.sessions)
        api.get("/chat/{user_id}/turns/{turn_id}", response_model=TurnState)(self.turn)
        api.post("/chat/{user_id}/turns/{turn_id}/cancel", response_model=TurnState)(self.cancel)
        api.get("/chat/{user_id}/turns/{turn_id}/events", response_class=StreamingResponse)(self.turn_events)
        return api

    async def root(self) -> dict[str, str]:
        """Welcome."""
        return {"message": "Welcome to the DACA Chat Service! Access /docs for the API documentation."}

    async def chat(
        self,
        request: Request,
        message: Message,
        idempotency_key: Annotated[Key | None, Header(alias=KEY)] = None,
    ) -> Response:
        """Says something. Where ``Accept`` prefers ``text/event-stream`` the reply comes in events: ``token``
        (``{text}``) as the model writes, ``restart`` (discard what was shown), ``replay`` (what follows was committed
        before), and at the end ``message`` (what this route answers otherwise, sent after the commit) or ``error`` (a
        problem). After a connection that broke, ``GET .../turns/{turn_id}/events`` goes on. The answer's
        ``Idempotency-Key`` names the turn."""
        accept = preferred(request.headers, JSON, EVENT_STREAM)
        turn = self._asked(message, idempotency_key, request)
        annotate(user=turn.user_id, session=turn.session_id, turn=turn.turn_id)
        outgoing = Outgoing(turn.user_id, "POST", "/chat/", _relayed(turn, accept), await request.body())
        if accept == EVENT_STREAM:
            told = {**STREAMED, KEY: turn.turn_id}
            if RELAYED in request.headers:  # refusals are statuses here: the process that asks may go elsewhere
                await self._elsewhere(request, outgoing)
                events = self._open_turns.join(turn, stream=True).events_until_drained()
            else:
                events = self._chat_events(request, turn, outgoing)
            return StreamingResponse(events, media_type=EVENT_STREAM, headers=told)
        answer = await _unless_gone(request, self._elsewhere(request, outgoing))
        if answer is not None:
            return Response(answer.body, answer.status, answer.headers)
        opened = self._open_turns.join(turn, stream=False)
        committed = await _unless_gone(request, opened.outcome())
        told = {KEY: turn.turn_id}
        if committed.replayed:
            told["Idempotency-Replayed"] = "true"
        return Response(reply_body(turn.user_id, committed), headers=told, media_type=JSON)

    async def clear_history(self, user_id: Id) -> Cleared:
        """Forgets the conversation. The transcript keeps what was said."""
        annotate(user=user_id)
        try:
            await self._sessions.call(user_id, CLEAR, NOTHING)
        except (DaprError, DaprUnavailable) as error:
            raise unreachable(error) from error
        return Cleared(status="success", user_id=user_id)

    async def sessions(
        self,
        user_id: Id,
        limit: Annotated[int, Query(ge=1, le=MAX_SESSIONS)] = 20,
        before: Annotated[str | None, Query(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}$")] = None,
    ) -> SessionList:
        """The conversations that a user has had, those that began last first; with ``before`` of an answer, those
        before. One appears when its first turn has reached the transcript, moments after its reply. What was said is
        at agent-memory-service, ``GET /conversations/{session_id}``."""
        annotate(user=user_id)
        return await self._memory.sessions(user_id, limit, before)

    async def turn(self, request: Request, user_id: Id, turn_id: Key) -> Response:
        """What became of a turn: whoever got no answer need not send the text again to learn it."""
        annotate(user=user_id, turn=turn_id)
        answer = await self._elsewhere(request, Outgoing(user_id, "GET", _turn_path(user_id, turn_id), {}))
        if answer is not None:
            return Response(answer.body, answer.status, answer.headers)
        return _json(await self._state(user_id, turn_id))

    async def cancel(self, request: Request, user_id: Id, turn_id: Key) -> Response:
        """Stops a turn. It answers what became of it: ``not_committed`` now and for good, or ``committed`` before."""
        annotate(user=user_id, turn=turn_id)
        outgoing = Outgoing(user_id, "POST", f"{_turn_path(user_id, turn_id)}/cancel", {})
        answer = await self._elsewhere(request, outgoing)
        if answer is not None:
            return Response(answer.body, answer.status, answer.headers)
        opened = self._open_turns.find(user_id, turn_id)
        if opened is not None and await opened.cancel(cancelled("The turn was cancelled.")):
            return _json(TurnState(turn_id=turn_id, status="not_committed"))
        try:
            # It may run in another process, whose completion is refused from now on.
            told = await self._sessions.call(user_id, CANCEL, TurnId(turn_id=turn_id))
        except (DaprError, DaprUnavailable) as error:
            raise unreachable(error) from error
        return _json(_turn_state(user_id, turn_id, told))

    async def turn_events(
        self,
        request: Request,
        user_id: Id,
        turn_id: Key,
        last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=64)] = None,
    ) -> Response:
        """The events of a turn as ``POST /chat/`` streams them, from the one after ``Last-Event-ID`` on. The model does
        not run again; of a turn that is committed comes its ``message``, of one that is not, an ``error``."""
        annotate(user=user_id, turn=turn_id)
        preferred(request.headers, EVENT_STREAM)
        headers = {"Accept": EVENT_STREAM} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        outgoing = Outgoing(user_id, "GET", f"{_turn_path(user_id, turn_id)}/events", headers)
        answer = await self._elsewhere(request, outgoing)
        if answer is not None and answer.stream is None:
            return Response(answer.body, answer.status, answer.headers)
        events = self._resumed(user_id, turn_id, last_event_id) if answer is None else answer.chunks()
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=STREAMED)

    async def _elsewhere(self, request: Request, outgoing: Outgoing) -> Incoming | None:
        """The answer of the process where the session lives; ``None`` where that is this one, or has to be."""
        if RELAYED not in request.headers:
            return await self._relay.send(outgoing)
        if self._sessions.here(outgoing.user_id) is None:
            raise Problem(421, "The user's session is not (or no longer) active here.", kind="/problems/misdirected")
        return None

    async def _chat_events(self, request: Request, turn: Turn, outgoing: Outgoing) -> AsyncIterator[bytes]:
        """The events of a turn, wherever it runs. Where that process goes in the middle, the turn starts again."""
        while True:
            try:
                answer = await self._elsewhere(request, outgoing)
                if answer is None:
                    async for event in self._open_turns.join(turn, stream=True).events(None):
                        yield event
                    return
            except Problem as problem:
                yield _error(problem.body())
                return
            if answer.stream is None:
                yield _error(answer.body)
                return
            ended, before = False, b""
            async for chunk in answer.chunks():
                seen = before + chunk  # a piece may end anywhere
                ended = ended or b"event: message\n" in seen or b"event: error\n" in seen
                before = chunk[-16:]
                yield chunk
            if ended:
                return
            yield format_sse_event(event="restart", data_str="{}")

    async def _resumed(self, user_id: str, turn_id: str, last_event_id: str | None) -> AsyncIterator[bytes]:
        try:
            opened = self._open_turns.find(user_id, turn_id)
            if opened is not None:
                async for event in opened.events(last_event_id):
                    yield event
                return
            state = await self._state(user_id, turn_id)
        except Problem as problem:
            yield _error(problem.body())
            return
        if state.reply is not None:
            yield format_sse_event(event="message", data_str=state.reply.model_dump_json(exclude_none=True))
        else:
            detail = "The turn is not open and not committed. Send the message again under its key."
            yield _error(Problem(404, detail, kind="/problems/not-committed").body())

    async def _state(self, user_id: str, turn_id: str) -> TurnState:
        opened = self._open_turns.find(user_id, turn_id)
        try:
            told = await self._sessions.call(user_id, GET, TurnId(turn_id=turn_id))
        except (DaprError, DaprUnavailable) as error:
            raise unreachable(error) from error
        if opened is not None and isinstance(told, protocol.NotCommitted):
            return TurnState(turn_id=turn_id, status="open", place=0)
        return _turn_state(user_id, turn_id, told)

    def _asked(self, message: Message, idempotency_key: str | None, request: Request) -> Turn:
        if len(request.headers.getlist(KEY)) > 1:
            raise invalid([{"field": KEY, "location": "header", "detail": "comes twice; send one"}])
        if not message.text.strip():
            detail = "Message text cannot be empty"
            raise Problem(400, detail, kind="/problems/empty-text", errors=[_text_error(detail)])
        if len(message.text) > MAX_TEXT:
            detail = f"The text has {len(message.text):,} characters; up to {MAX_TEXT:,} are taken. Send it in parts."
            raise Problem(413, detail, kind="/problems/too-large", errors=[_text_error(detail)])
        session_id = message.metadata.session_id if message.metadata else None
        relayed = request.headers.get(RELAYED) is not None
        arrived = request.headers.get(ARRIVED) if relayed else None
        made = request.headers.get(TURN) if relayed else None
        turn_id = idempotency_key or made or uuid4().hex
        return Turn(
            user_id=message.user_id,
            turn_id=turn_id,
            keyed=idempotency_key is not None,
            session_id=session_id or _session_of(message.user_id, turn_id),
            names_session=session_id is not None,
            text=message.text,
            arrived_at=_number(arrived) or time.time(),
            when_busy=message.when_busy or self._when_busy,
        )


async def _unless_gone(request: Request, work: Awaitable[R]) -> R:
    """What ``work`` returns; it is cancelled when the client hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise client_gone()  # nobody reads it
        return working.result()
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _session_of(user_id: str, turn_id: str) -> str:
    """The session of a message that names none: the same for each try under a key, wherever it is answered."""
    return str(uuid5(NAMESPACE_URL, f"session:{user_id}/{turn_id}"))


def _turn_state(user_id: str, turn_id: str, told: protocol.TurnAnswer) -> TurnState:
    match told:
        case protocol.Open():
            return TurnState(turn_id=turn_id, status="open", place=told.place)
        case protocol.Replayed():
            reply = Reply(
                user_id=user_id,
                reply=told.reply_text,
                metadata=ReplyMetadata(session_id=told.session_id, timestamp=told.occurred_at),
                turn_id=told.turn_id,
                sequence=told.sequence,
                finish_reason=None if told.finish_reason == "stop" else told.finish_reason,
            )
            return TurnState(turn_id=turn_id, status="committed", reply=reply)
        case protocol.Expired():
            refuse(told)
    return TurnState(turn_id=turn_id, status="not_committed")


def _turn_path(user_id: str, turn_id: str) -> str:
    return f"/chat/{quote(user_id, safe='')}/turns/{quote(turn_id, safe='')}"


def _relayed(turn: Turn, accept: str) -> dict[str, str]:
    """Headers of a message on its way to another process, which takes it for this very turn."""
    headers = {"Content-Type": JSON, "Accept": accept, ARRIVED: repr(turn.arrived_at)}
    return headers | ({KEY: turn.turn_id} if turn.keyed else {TURN: turn.turn_id})


def _text_error(detail: str) -> FieldError:
    return {"field": "text", "location": "body", "detail": detail}


def _error(problem: bytes) -> bytes:
    return format_sse_event(event="error", data_str=problem.decode())


def _json(body: BaseModel) -> Response:
    return Response(body.model_dump_json(exclude_none=True), media_type=JSON)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else 0.0
    except ValueError:
        return 0.0
