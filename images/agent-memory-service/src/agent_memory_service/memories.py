"""What is known of a user: name, style and summary."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from agent_memory_service.documents import VERSION, Document, Documents, Found
from agent_memory_service.sessions import Sessions

MAX_SUMMARY: Final = 2000
"""Characters of a summary; it is part of every turn's instructions."""
SUMMARIZED: Final = 64
"""The latest turns that a memory knows to be in its summary: a roll-up that is done twice finds nothing to do."""


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


_OneLine: Final = AfterValidator(_one_line)

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), _OneLine]
Style = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), _OneLine]
Summary = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_SUMMARY)]


class Memory(BaseModel):
    """A user as the agent is told of them."""

    name: Name
    preferred_style: Style = Field(description="Completes “Respond in a ... way”, such as casual or formal.")
    user_summary: Summary

    @classmethod
    def of_new_user(cls, user_id: str) -> "Memory":
        """What is known of a user of whom nothing is known."""
        return cls(name=user_id, preferred_style="casual", user_summary=f"{user_id} is a new user.")


class Memories:
    """The users' memories, one document each.

    Every method raises ``DaprError``, ``DaprUnavailable`` or ``LaterVersion`` as :class:`Documents` does.
    """

    def __init__(self, documents: Documents, sessions: Sessions) -> None:
        """``sessions`` are told of each change before it is answered."""
        self._documents = documents
        self._sessions = sessions

    async def get(self, user_id: str) -> Memory:
        """What is known of a user; where there is nothing, that of a new one."""
        return _memory(user_id, await self._documents.read(_key(user_id)))

    async def initialize(self, user_id: str, memory: Memory) -> None:
        """Writes a user's memory, whatever was known before.

        Raises:
            Contended: others wrote each time.
        """

        async def replaced(found: Found) -> Document:
            return _document(found, memory)

        await self._documents.update(_key(user_id), replaced)
        await self._sessions.tell_of_change(user_id)

    async def begin_summary(self, user_id: str) -> "Begun":
        """A memory, to be written with a new summary."""
        found = await self._documents.read(_key(user_id))
        summarized = found.document.get("summarized", []) if found.document else []
        return Begun(_memory(user_id, found), found, tuple(summarized))

    async def end_summary(self, user_id: str, begun: "Begun", summary: str, sequences: Iterable[int]) -> bool:
        """Writes a new summary, with the turns it was made of; False where the memory has changed since it began."""
        memory = begun.memory.model_copy(update={"user_summary": summary})
        latest = sorted({*begun.summarized, *sequences})[-SUMMARIZED:]
        document = _document(begun.found, memory) | {"summarized": latest}
        written = await self._documents.write(_key(user_id), document, begun.found)
        if written:
            await self._sessions.tell_of_change(user_id)
        return written

    async def erase(self, user_id: str) -> bool:
        """Erases a memory; whether there was one. A summary that has begun cannot be written any more.

        Raises:
            Contended: others wrote each time.
        """
        erased = await self._documents.erase(_key(user_id)) is not None
        await self._sessions.tell_of_change(user_id)
        return erased


class Begun(NamedTuple):
    """A memory while its summary is made anew."""

    memory: Memory
    found: Found
    summarized: tuple[int, ...]

    def has(self, sequence: int) -> bool:
        """Whether the summary knows a turn already. Of very old ones it is taken for granted."""
        return sequence in self.summarized or (len(self.summarized) == SUMMARIZED and sequence < min(self.summarized))


def _key(user_id: str) -> str:
    return f"memory-{user_id}"


def _memory(user_id: str, found: Found) -> Memory:
    return Memory.of_new_user(user_id) if found.document is None else Memory(**found.document["memory"])


def _document(found: Found, memory: Memory) -> Document:
    """With what a later release has put into it."""
    old = found.document or {}
    known = old.get("memory", {}) | memory.model_dump()
    return old | {"version": VERSION, "updated_at": datetime.now(UTC).isoformat(), "memory": known}
