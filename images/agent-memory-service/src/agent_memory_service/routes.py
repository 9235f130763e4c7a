"""HTTP in and out."""

import logging
from datetime import datetime
from typing import Final, Literal

import orjson
from daca_common.conversation_updated import CloudEvent, ConversationUpdated
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.ids import Id
from daca_common.logs import annotate
from daca_common.problems import limited_body
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from agent_memory_service.documents import Contended
from agent_memory_service.memories import Memories, Memory
from agent_memory_service.summaries import Summaries
from agent_memory_service.transcripts import Transcripts, Turn

MAX_BODY: Final = 64 * 1024
"""Bytes. A memory of the longest values takes some 30 KB where a client escapes each character."""
MAX_EVENT: Final = 4 * 1024 * 1024
"""Bytes. Two texts of 100,000 characters take 1.2 MB where each character is escaped."""

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
    """A session's transcript, oldest first."""

    history: list[Entry]


class Handled(BaseModel):
    """What the sidecar does with an event: done with it, deliver it again, or put it on the dead-letter topic."""

    status: Literal["SUCCESS", "RETRY", "DROP"]


SUCCESS: Final = Handled(status="SUCCESS")
RETRY: Final = Handled(status="RETRY")
DROP: Final = Handled(status="DROP")


def router(memories: Memories, transcripts: Transcripts, summaries: Summaries) -> APIRouter:
    """The routes of the service."""
    api = APIRouter()

    @api.get("/")
    async def root() -> dict[str, str]:
        """Welcome."""
        return {"message": "Welcome to the DACA Agent Memory Service! Access /docs for the API documentation."}

    @api.get("/memories/{user_id}")
    async def memory(user_id: Id) -> Memory:
        """What is known of a user; of an unknown one, what holds for a new user."""
        annotate(user=user_id)
        found, _ = await memories.get(user_id)
        return found

    @api.post("/memories/{user_id}/initialize")
    async def initialize(user_id: Id, memory: Memory) -> Initialized:
        """Sets what is known of a user, whatever was known before."""
        annotate(user=user_id)
        await memories.initialize(user_id, memory)
        return Initialized(user_id=user_id, metadata=memory)

    @api.get("/conversations/{session_id}", response_model=Conversation)
    async def conversation(session_id: Id) -> Response:
        """A session's transcript; an empty one for a session that nobody has heard of."""
        annotate(session=session_id)
        history = [entry for turn in await transcripts.read(session_id) for entry in _entries(turn)]
        return Response(orjson.dumps({"history": history}), media_type="application/json")

    @api.post("/conversations")
    async def conversation_updated(request: Request) -> Handled:
        """Takes a CloudEvent of topic ``conversations`` from the sidecar, whose data is a ``ConversationUpdated``.

        Always 200: a malformed event will not mend by being sent again, so it is dropped to the dead-letter topic.
        """
        event = _event(await limited_body(request, MAX_EVENT))
        if event is None:
            return DROP
        annotate(user=event.user_id, session=event.session_id, turn=event.turn_id)
        try:
            new = await transcripts.append(event)
        except (DaprError, DaprUnavailable, Contended) as error:
            _log.warning("event not stored, to be delivered again", extra={"error": repr(error)})
            return RETRY
        if new:
            summaries.note(event)
        return SUCCESS

    return api


def _event(body: bytes | None) -> ConversationUpdated | None:
    """The event in a request's body; ``None``, and a line that says why, where there is none."""
    if body is None:
        _log.warning("event dropped", extra={"errors": [f"larger than {MAX_EVENT:,} bytes"]})
        return None
    try:
        return CloudEvent.model_validate_json(body).data
    except ValidationError as error:
        # The input stays out of the log: it is what a user said.
        errors = [
            f"{'.'.join(str(part) for part in item['loc']) or 'body'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        ]
        _log.warning("event dropped", extra={"errors": errors})
        return None


def _entries(turn: Turn) -> tuple[dict[str, object], dict[str, object]]:
    shared = {
        "timestamp": turn["occurred_at"],
        "user_id": turn["user_id"],
        "turn_id": turn["turn_id"],
        "sequence": turn["sequence"],
    }
    return (
        {"role": "user", "content": turn["user_message"]} | shared,
        {"role": "assistant", "content": turn["assistant_reply"]} | shared,
    )
