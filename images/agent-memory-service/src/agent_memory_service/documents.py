"""Documents in the state store, written only over the version that was read."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from daca_common.dapr import DaprClient

ATTEMPTS: Final = 10

Document = dict[str, Any]
Change = Callable[[Document | None], Awaitable[Document | None]]
"""Gets a document (``None``: there is none) and returns the one to write, or ``None`` to leave it."""


class Contended(Exception):
    """Others kept writing the same document. Nothing was written; trying again later helps."""


class Documents:
    """JSON documents by key, in one state component."""

    def __init__(self, dapr: DaprClient, store: str) -> None:
        self._dapr = dapr
        self._store = store

    async def read(self, key: str) -> tuple[Document | None, str | None]:
        """A document and its ETag; ``(None, None)`` where there is none.

        Raises:
            DaprError, DaprUnavailable: it could not be read.
        """
        document, etag = await self._dapr.get_state(self._store, key)
        return document, etag

    async def write(self, key: str, document: Document, etag: str | None) -> bool:
        """Writes a document over the one that has ``etag`` (``None``: where there is none).

        Returns:
            False where it was not written: another writer came first, or the store did not answer its sidecar, which
            looks the same. Reading again tells.
        """
        return await self._dapr.save_state(self._store, key, document, etag)

    async def update(self, key: str, change: Change) -> bool:
        """Writes what ``change`` makes of a document, again and again until no other write comes between.

        Returns:
            Whether it was written; False where ``change`` left it.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached.
            Contended: others wrote each time.
        """
        for attempt in range(ATTEMPTS):
            document, etag = await self.read(key)
            changed = await change(document)
            if changed is None:
                return False
            if await self.write(key, changed, etag):
                return True
            await asyncio.sleep(random.uniform(0, 0.005 * 2 ** min(attempt, 5)))  # noqa: S311 - it spreads writers
        raise Contended
