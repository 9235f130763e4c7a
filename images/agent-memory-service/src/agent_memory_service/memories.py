"""What is known of a user: name, style and summary."""

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from agent_memory_service.documents import Document, Documents

VERSION: Final = 1
MAX_SUMMARY: Final = 2000
"""Characters of a summary; it is part of every turn's instructions."""


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
    """The users' memories, one document each."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def get(self, user_id: str) -> tuple[Memory, str | None]:
        """A user's memory and the ETag it is stored under; that of a new user, and no ETag, where there is none.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached.
        """
        document, etag = await self._documents.read(_key(user_id))
        return (Memory.of_new_user(user_id), None) if document is None else (Memory(**document["memory"]), etag)

    async def initialize(self, user_id: str, memory: Memory) -> None:
        """Writes a user's memory, whatever was known before.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached.
            Contended: others wrote each time.
        """

        async def replaced(_: Document | None) -> Document:
            return _document(memory)

        await self._documents.update(_key(user_id), replaced)

    async def summarize(self, user_id: str, memory: Memory, etag: str | None) -> bool:
        """Writes a memory with a new summary over the one it was made from; False where that has changed meanwhile.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached.
        """
        return await self._documents.write(_key(user_id), _document(memory), etag)


def _key(user_id: str) -> str:
    return f"memory-{user_id}"


def _document(memory: Memory) -> Document:
    return {"version": VERSION, "updated_at": datetime.now(UTC).isoformat(), "memory": memory.model_dump()}
