"""A document store in memory, with the real one's ETag rule and with faults on demand."""

import asyncio

from chat_service.document import Document
from daca_common.dapr import DaprError, DaprUnavailable


class MemoryStore:
    """Stands in for ``chat_service.store.DocumentStore``; what it holds is public."""

    def __init__(self) -> None:
        self.stored: dict[str, Document] = {}
        """By user id."""
        self.faults: list[str] = []
        """Of the next writes, in order: ``lost before`` or ``lost after`` they take effect, empty for none."""
        self.writes = 0

    def of(self, user_id: str) -> Document:
        """What is stored for a user."""
        return self.stored.get(user_id, Document())

    async def load(self, user_id: str) -> Document:
        await asyncio.sleep(0)
        return self.of(user_id)

    async def save(self, user_id: str, document: Document) -> None:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost before":
            raise DaprUnavailable("broken off")
        if self.of(user_id).rev != document.rev - 1:
            raise DaprError(500, "ERR_ACTOR_STATE_TRANSACTION_SAVE", "failed to set key")
        self.stored[user_id] = document
        self.writes += 1
        if fault == "lost after":
            raise DaprUnavailable("broken off")
