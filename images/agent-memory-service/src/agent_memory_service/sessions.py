"""The sessions of the users: what this service asks their actors."""

import asyncio
import logging
from typing import Any, Final, Literal

from daca_common.backoff import Backoff
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from pydantic import BaseModel

ACTOR_TYPE: Final = "UserSessionActor"
TOLD_ATTEMPTS: Final = 5
TOLD_SECONDS: Final = 2.0
"""Of one attempt."""

_log = logging.getLogger(__name__)


class Erased(BaseModel):
    """What an actor had, and the number of its user's last turn."""

    status: Literal["erased"]
    sequence: int
    removed: dict[str, Any] = {}


class Sessions:
    """Calls the actors of users."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def erase(self, user_id: str) -> Erased:
        """Erases what a user's actor keeps.

        Raises:
            DaprError, DaprUnavailable, ValidationError: it may not be erased.
        """
        return Erased.model_validate(await self._dapr.invoke_actor(ACTOR_TYPE, user_id, "Erase", {}))

    async def tell_of_change(self, user_id: str) -> None:
        """What is known of a user has changed: once this returns, their next turn knows it. A session that could not be
        told asks anew by itself after some minutes."""
        backoff = Backoff(0.05, 1.0)
        for attempt in range(1, TOLD_ATTEMPTS + 1):
            try:
                await self._dapr.invoke_actor(ACTOR_TYPE, user_id, "MemoryChanged", {}, timeout_seconds=TOLD_SECONDS)
            except (DaprError, DaprUnavailable) as error:
                if isinstance(error, DaprError) and error.code == "ERR_ACTOR_NO_ADDRESS":
                    return  # no chat-service runs: nobody remembers anything
                if attempt == TOLD_ATTEMPTS:
                    _log.warning("a session was not told that its memory has changed", extra={"error": str(error)})
                    return
                await asyncio.sleep(backoff.next())
            else:
                return
