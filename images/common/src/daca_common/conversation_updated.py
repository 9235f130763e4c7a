"""``ConversationUpdated``: what chat-service publishes when a turn is committed, and agent-memory-service takes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import NAMESPACE_URL, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from daca_common.ids import Id


def _with_time_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("must have a time zone")
    return text


class ConversationUpdated(BaseModel):
    """One turn of a user. At least once and in any order: ``event_id`` tells a repeat, ``sequence`` the order.

    Fields that a later release adds are ignored.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    event_type: Literal["ConversationUpdated"]
    event_id: Id
    turn_id: Id
    sequence: int = Field(ge=1, lt=2**53)
    """Counts the user's turns, over all sessions."""
    occurred_at: Annotated[str, AfterValidator(_with_time_zone)]
    """RFC 3339."""
    user_id: Id
    session_id: Id
    user_message: str
    assistant_reply: str


class CloudEvent(BaseModel):
    """The envelope; nothing but its data matters here."""

    data: ConversationUpdated


def event_id(user_id: str, sequence: int, turn_id: str) -> str:
    """The id of a turn's event: the same whoever publishes it, however often."""
    return str(uuid5(NAMESPACE_URL, f"conversation:{user_id}/{sequence}/{turn_id}"))


def cloud_event(data: Mapping[str, Any]) -> dict[str, Any]:
    """The CloudEvent that carries the fields of a :class:`ConversationUpdated`."""
    return {
        "specversion": "1.0",
        "type": "ConversationUpdated",
        "source": "chat-service",
        "id": data["event_id"],
        "time": data["occurred_at"],
        "datacontenttype": "application/json",
        "data": data,
    }
