"""What is known of a user, from agent-memory-service through Dapr.

A session remembers it for as long as it is active: a question through two sidecars for each turn is a fifth of what a
turn costs. Whoever changes what is known tells the session before the change is answered (``MemoryChanged``).
"""

import logging
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.problems import Problem
from pydantic import BaseModel, ValidationError

REMEMBERED_SECONDS: Final = 300.0
"""A session that could not be told of a change asks anew after so long."""

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


class Session(BaseModel):
    """A session of a user; ``last_turn_at`` (RFC 3339) is null where its transcript has expired."""

    session_id: str
    last_turn_at: str | None


class SessionList(BaseModel):
    """A user's sessions, those that began last first; ``before`` asks for those before them, null: there are none."""

    sessions: list[Session]
    before: str | None


@dataclass(slots=True)
class Remembered:
    """What a session that is active in this process knows of its user."""

    memory: Memory | None = None
    until: float = 0.0
    changes: int = 0

    def forget(self) -> None:
        """It has changed. What is on its way may be what it was before."""
        self.memory = None
        self.changes += 1


class MemoryClient:
    """Asks agent-memory-service; a turn never fails because of it."""

    def __init__(self, dapr: DaprClient, app_id: str, timeout_seconds: float) -> None:
        self._dapr = dapr
        self._app_id = app_id
        self._timeout_seconds = timeout_seconds

    async def get(self, user_id: str, remembered: Remembered) -> Memory:
        """The user's memory, as it is ``remembered`` or, else, asked for; that of a new user where the service does not
        answer in time."""
        if remembered.memory is not None and time.monotonic() < remembered.until:
            return remembered.memory
        changes = remembered.changes
        memory = await self._fetch(user_id)
        if memory is None:
            return Memory.of_new_user(user_id)
        if remembered.changes == changes:
            remembered.memory, remembered.until = memory, time.monotonic() + REMEMBERED_SECONDS
        return memory

    async def sessions(self, user_id: str, limit: int, before: str | None) -> SessionList:
        """The sessions that a user has had: those whose turns have reached the transcript.

        Raises:
            Problem: 503, the service does not answer.
        """
        asked = urlencode({"limit": limit} | ({"before": before} if before else {}))
        path = f"memories/{quote(user_id, safe='')}/sessions?{asked}"
        try:
            return SessionList.model_validate(
                await self._dapr.invoke_service(self._app_id, "GET", path, timeout_seconds=self._timeout_seconds)
            )
        except (DaprError, DaprUnavailable, ValidationError) as error:
            _log.warning("sessions not listed", extra={"error": type(error).__name__})
            detail = "The sessions are kept by agent-memory-service, which does not answer; send it again."
            headers = {"Retry-After": "1"}
            raise Problem(503, detail, kind="/problems/memory-unavailable", headers=headers) from error

    async def _fetch(self, user_id: str) -> Memory | None:
        path = f"memories/{quote(user_id, safe='')}"
        try:
            return Memory.model_validate(
                await self._dapr.invoke_service(self._app_id, "GET", path, timeout_seconds=self._timeout_seconds)
            )
        except (DaprError, DaprUnavailable, ValidationError) as error:
            _log.warning("memory not available, going on without", extra={"error": type(error).__name__})
            return None
