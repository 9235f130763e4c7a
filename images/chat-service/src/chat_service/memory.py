"""What is known of a user, from agent-memory-service through Dapr."""

import logging
from urllib.parse import quote

from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from pydantic import BaseModel, ValidationError

_log = logging.getLogger(__name__)


class Memory(BaseModel):
    """A user as the agent is told of them."""

    name: str
    preferred_style: str
    user_summary: str

    @classmethod
    def of_new_user(cls, user_id: str) -> "Memory":
        """What is known of a user of whom nothing is known."""
        return cls(name=user_id, preferred_style="casual", user_summary=f"{user_id} is a new user.")


class MemoryClient:
    """Asks agent-memory-service; a turn never fails because of it."""

    def __init__(self, dapr: DaprClient, app_id: str, timeout_seconds: float) -> None:
        self._dapr = dapr
        self._app_id = app_id
        self._timeout_seconds = timeout_seconds

    async def fetch(self, user_id: str) -> Memory:
        """The user's memory; that of a new user where the service does not answer in time."""
        path = f"memories/{quote(user_id, safe='')}"
        try:
            return Memory.model_validate(
                await self._dapr.invoke_service(self._app_id, "GET", path, timeout_seconds=self._timeout_seconds)
            )
        except (DaprError, DaprUnavailable, ValidationError) as error:
            _log.warning("memory not available, going on without", extra={"error": type(error).__name__})
            return Memory.of_new_user(user_id)
