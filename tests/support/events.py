"""Events as chat-service publishes them."""

from typing import Any
from uuid import NAMESPACE_URL, uuid5


def conversation_updated(
    sequence: int = 1, user_id: str = "junaid", session_id: str = "s1", **more: Any
) -> dict[str, Any]:
    """A CloudEvent of one turn. The same turn has the same ids."""
    event_id = str(uuid5(NAMESPACE_URL, f"{user_id} {session_id} {sequence}"))
    data = {
        "event_type": "ConversationUpdated",
        "event_id": event_id,
        "turn_id": f"turn-{sequence}",
        "sequence": sequence,
        "occurred_at": f"2026-11-23T{sequence // 3600 % 24:02d}:{sequence // 60 % 60:02d}:{sequence % 60:02d}.000Z",
        "user_id": user_id,
        "session_id": session_id,
        "user_message": f"message {sequence}",
        "assistant_reply": f"reply {sequence}",
    }
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": "chat-service",
        "type": "ConversationUpdated",
        "datacontenttype": "application/json",
        "data": data | more,
    }
