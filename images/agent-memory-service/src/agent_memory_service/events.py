"""What chat-service publishes: a turn was committed."""

from datetime import datetime
from typing import Annotated, Literal

from daca_common.ids import Id
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _with_time_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("must have a time zone")
    return text


class ConversationUpdated(BaseModel):
    """One turn of a user. At least once and in any order: ``event_id`` tells a repeat, ``sequence`` the order."""

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
