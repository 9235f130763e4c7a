"""Whose summary is due, kept beyond the process: each process has a journal, and what one leaves another takes over.

A journal is written by its process alone, so it needs no ETag; users are spread over a few documents, each written once
for all who wait for it. A common document counts the beats of every process. One whose count has stood still for
:data:`LOOKS` looks, or that has said good-bye, is gone; nobody compares clocks. Where two take over the same journal,
both roll the same users up, which the memory notices.
"""

import asyncio
from typing import Final
from uuid import uuid4
from zlib import crc32

from agent_memory_service.documents import VERSION, Document, Documents, Found

SHARDS: Final = 64
"""A write holds all who are due in its shard, and goes for all of them who come while it waits for the one before."""
LOOK_SECONDS: Final = 20.0
LOOKS: Final = 3
GONE: Final = -1
"""The beat of a process that has said good-bye."""
PROCESSES_KEY: Final = "due-processes"

Sessions = dict[str, int]
"""By session id: the first turn of it that is not in the summary."""


class Due:
    """The journal of this process, and a look at those of others. Its methods raise as :class:`Documents` does."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._process = uuid4().hex
        self._shards = [_Shard(documents, _shard_key(self._process, number)) for number in range(SHARDS)]
        self._beat = 0
        self._beating = asyncio.Lock()
        self._looked: dict[str, tuple[int, int]] = {}
        """Of other processes: the beat, and how many looks have found it."""

    async def keep(self, user_id: str, sessions: Sessions) -> None:
        """Returns when it is written that a user is due for these sessions; at once where it is already."""
        if not self._beat:  # a journal that nobody knows of would not be taken over
            async with self._beating:
                if not self._beat:
                    await self._meet()
        await self._shard(user_id).set(user_id, sessions)

    async def drop(self, user_id: str) -> None:
        """The user is not due any more."""
        await self._shard(user_id).set(user_id, None)

    async def look(self) -> dict[str, Sessions]:
        """Says that this process lives; who was due at those that do not, and is so here from now on."""
        async with self._beating:
            others = await self._meet()
        taken: dict[str, Sessions] = {}
        gone = []
        for process, beat in others.items():
            seen, looks = self._looked.get(process, (beat, 0))
            self._looked[process] = (beat, looks + 1 if seen == beat else 1)
            if beat == GONE or self._looked[process][1] >= LOOKS:
                gone.append(process)
                for number in range(SHARDS):
                    journal = (await self._documents.read(_shard_key(process, number))).document
                    taken |= journal["users"] if journal else {}
        self._looked = {process: self._looked[process] for process in others}
        for user_id, sessions in taken.items():
            shard = self._shard(user_id)
            taken[user_id] = sessions | shard.users.get(user_id, {})
        await asyncio.gather(*(self._shard(user_id).set(user_id, sessions) for user_id, sessions in taken.items()))
        await self._forget(gone)
        return taken

    async def leave(self) -> None:
        """Says good-bye: who is still due here is due elsewhere."""
        if not self._beat:
            return
        if any(shard.users for shard in self._shards):
            async with self._beating:
                self._beat = GONE - 1
                await self._meet()
        else:
            await self._forget([self._process])

    async def _meet(self) -> dict[str, int]:
        """Counts a beat; those of the others."""
        beat = self._beat + 1
        others: dict[str, int] = {}
        missed = False

        async def met(found: Found) -> Document:
            nonlocal others, missed
            document = found.document or {"version": VERSION, "processes": {}}
            others = {process: beat for process, beat in document["processes"].items() if process != self._process}
            missed = len(others) == len(document["processes"]) and self._beat > 0
            return document | {"processes": others | {self._process: beat}}

        await self._documents.update(PROCESSES_KEY, met)
        self._beat = beat
        if missed:  # another took this process for gone, and its journal
            await asyncio.gather(*(shard.write_again() for shard in self._shards if shard.users))
        return others

    async def _forget(self, processes: list[str]) -> None:
        if not processes:
            return
        for process in processes:
            for number in range(SHARDS):
                await self._documents.delete(_shard_key(process, number))

        async def forgotten(found: Found) -> Document | None:
            if found.document is None:
                return None
            left = {name: beat for name, beat in found.document["processes"].items() if name not in processes}
            return found.document | {"processes": left}

        await self._documents.update(PROCESSES_KEY, forgotten)

    def _shard(self, user_id: str) -> "_Shard":
        return self._shards[crc32(user_id.encode()) % SHARDS]


class _Shard:
    """A part of the journal."""

    def __init__(self, documents: Documents, key: str) -> None:
        self.users: dict[str, Sessions] = {}
        self._documents = documents
        self._key = key
        self._writing = asyncio.Lock()
        self._changes = 0
        self._written = 0

    async def set(self, user_id: str, sessions: Sessions | None) -> None:
        if self.users.get(user_id) != sessions:
            self._changes += 1
            if sessions is None:
                del self.users[user_id]
            else:
                self.users[user_id] = sessions
        await self._flush()

    async def write_again(self) -> None:
        self._changes += 1
        await self._flush()

    async def _flush(self) -> None:
        mine = self._changes
        async with self._writing:
            if self._written < mine:  # else the write before this one took it along
                upto = self._changes
                await self._documents.put(self._key, {"version": VERSION, "users": self.users})
                self._written = upto


def _shard_key(process: str, number: int) -> str:
    return f"due-{process}:{number}"
