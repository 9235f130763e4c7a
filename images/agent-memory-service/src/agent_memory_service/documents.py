"""Documents in the state store, written only over the version that was read.

A document that is erased for a user's sake leaves a mark in its place for an hour. Without it, a writer that had read
the document before could write it again: a key that is missing takes any ETag.

What is read, or written, in the same moment goes to the store in one request: the documents of events that are handled
side by side. Where one of those writes is refused, all of them count as refused, and are judged again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson
from daca_common.dapr import CREATE, FOR_EVER, DaprClient, DaprUnavailable, StateWrite

from agent_memory_service.together import Together

VERSION: Final = 2
"""Of every document. Of version 1 only memories are met, and these are the same; its transcripts lay under other keys,
all users' in one, and were never released."""
ATTEMPTS: Final = 10
ERASED_SECONDS: Final = 3600
"""How long the mark of an erased document stays: longer than any request lasts."""
AT_ONCE: Final = 16
"""Documents in one request."""
LARGE: Final = 128 * 1024
"""Bytes of JSON from which on a document is written in a request of its own: the sidecar takes 16 MiB at once."""

Document = dict[str, Any]


class Contended(Exception):
    """Others kept writing the same document. Nothing was written; trying again later helps."""


class LaterVersion(Exception):
    """A document that a later release wrote in a form that this one does not know. Nothing was written."""

    def __init__(self, version: object) -> None:
        super().__init__(f"a document has version {version}, this release knows those up to {VERSION}: update it")


class Found(NamedTuple):
    """What a key has: a document and its ETag, nothing, or (``erased``) the mark of one that was erased."""

    document: Document | None
    etag: str | None
    erased: bool = False


Change = Callable[[Found], Awaitable[Document | None]]
"""Gets what was found and returns the document to write, or ``None`` to leave it. It keeps fields it does not know."""


class Documents:
    """JSON documents by key, in one state component.

    Every method raises ``DaprError`` or ``DaprUnavailable`` where the store cannot be reached, and
    :class:`LaterVersion` where a document is of a later release.
    """

    def __init__(self, dapr: DaprClient, store: str) -> None:
        self._dapr = dapr
        self._store = store
        self._reads = Together(self._read_all, AT_ONCE)
        self._writes = Together(self._write_all, AT_ONCE)
        self._puts = Together(self._put_all, AT_ONCE)

    async def read(self, key: str) -> Found:
        """What a key has."""
        document, etag = await self._reads.ask(key)
        if document is None:
            return Found(None, None)
        if document["version"] > VERSION:
            raise LaterVersion(document["version"])
        return Found(None, etag, erased=True) if document.get("erased") is True else Found(document, etag)

    async def write(self, key: str, document: Document, over: Found, *, ttl_seconds: int | None = None) -> bool:
        """Writes a document over what was found.

        Returns:
            False where it was not written: another writer came first, or the store did not answer its sidecar, which
            looks the same. Reading again tells.
        """
        if ttl_seconds is None and over.erased:
            ttl_seconds = FOR_EVER  # that of the mark would go on
        text = orjson.dumps(document)
        write = StateWrite(key, orjson.Fragment(text), over.etag or CREATE, ttl_seconds)
        if len(text) >= LARGE:
            return await self._dapr.save_states(self._store, [write])
        return await self._writes.ask(write)

    async def update(self, key: str, change: Change) -> bool:
        """Writes what ``change`` makes of a document, again and again until no other write comes between.

        Returns:
            Whether it was written; False where ``change`` left it.

        Raises:
            Contended: others wrote each time.
        """
        for attempt in range(ATTEMPTS):
            found = await self.read(key)
            changed = await change(found)
            if changed is None:
                return False
            if await self.write(key, changed, found):
                return True
            await pause(attempt)
        raise Contended

    async def put(self, key: str, document: Document, *, ttl_seconds: int | None = None) -> None:
        """Writes a document that nobody else writes, or that is the same whoever writes it."""
        text = orjson.dumps(document)
        write = StateWrite(key, orjson.Fragment(text), None, ttl_seconds)
        await (self._put_all([write]) if len(text) >= LARGE else self._puts.ask(write))

    async def delete(self, key: str) -> None:
        """Removes what :meth:`put` wrote; nothing that is :meth:`update`\\ d is ever removed at once."""
        await self._dapr.delete_state(self._store, key)

    async def mark_erased(self, key: str, over: Found) -> bool:
        """Puts the mark of an erased document over what was found, be it nothing or a mark; False as :meth:`write`.

        Over a mark, too: a writer that has read it before must be refused.
        """
        return await self.write(key, {"version": VERSION, "erased": True}, over, ttl_seconds=ERASED_SECONDS)

    async def erase(self, key: str) -> Document | None:
        """Erases a document; what it was.

        Raises:
            Contended: others wrote each time.
        """
        for attempt in range(ATTEMPTS):
            found = await self.read(key)
            if await self.mark_erased(key, found):
                return found.document
            await pause(attempt)
        raise Contended

    async def _read_all(self, keys: list[str]) -> list[tuple[Any, str | None]]:
        return await self._dapr.get_states(self._store, keys)

    async def _write_all(self, writes: list[StateWrite]) -> list[bool]:
        return [await self._dapr.save_states(self._store, writes)] * len(writes)

    async def _put_all(self, writes: list[StateWrite]) -> list[None]:
        if not await self._dapr.save_states(self._store, writes):
            raise DaprUnavailable("a write that asks for no ETag was refused for one")
        return [None] * len(writes)


async def pause(attempt: int) -> None:
    """Spreads writers that met."""
    await asyncio.sleep(random.uniform(0, 0.005 * 2 ** min(attempt, 5)))  # noqa: S311 - it spreads writers
