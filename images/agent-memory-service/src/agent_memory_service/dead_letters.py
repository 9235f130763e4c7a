"""Events that could not be handled, kept until somebody has read, replayed or deleted them.

A list has what can be told without a user's words, newest last; each event is a document of its own. An event is listed
before it is written and written off the list after it is gone: what the list does not name is nowhere.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import orjson
from daca_common.ids import Id
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_memory_service.documents import VERSION, Document, Documents, Found
from agent_memory_service.events import MAX_EVENT, Malformed, parse
from agent_memory_service.users import Users

NEWEST: Final = 1000
NEWEST_BYTES: Final = 64 * 1024 * 1024
HEAD: Final = 16 * 1024
"""What is kept of an event that is too large to be one; bytes."""
LIST_KEY: Final = "dead-letters"
UNTOLD: Final = "it could not be stored, and the retries were used up"

T = TypeVar("T")
_ID: Final[TypeAdapter[str]] = TypeAdapter(Id)
_SEQUENCE: Final[TypeAdapter[int]] = TypeAdapter(Annotated[int, Field(strict=True, ge=1, lt=2**53)])


class DeadLetter(BaseModel):
    """What the list has of an event. Ids and sequence are ``None`` where they cannot be read."""

    model_config = ConfigDict(frozen=True, extra="allow")  # what a later release adds stays when the list is rewritten

    id: str
    at: str
    reason: str
    bytes: int
    user_id: str | None
    session_id: str | None
    sequence: int | None


class DeadLetters:
    """The dead letters. Methods raise as :class:`Documents` does, and ``Contended`` where others wrote each time."""

    def __init__(self, documents: Documents, users: Users) -> None:
        self._documents = documents
        self._users = users
        self._changing = asyncio.Lock()
        """Of this pod one at a time: they all change the same list."""

    async def add(self, body: bytes) -> None:
        """Keeps an event as it came; once, however often it comes. One of a user who was erased since is not kept."""
        letter = _letter(body)
        kept = body if len(body) <= MAX_EVENT else body[:HEAD]

        def added(letters: list[DeadLetter]) -> list[DeadLetter]:
            letters = letters if any(known.id == letter.id for known in letters) else [*letters, letter]
            first = max(0, len(letters) - NEWEST)
            size = sum(one.bytes for one in letters[first:])
            while size > NEWEST_BYTES:
                size -= letters[first].bytes
                first += 1
            return letters[first:]

        await self._change(added)
        document = {"version": VERSION, "body": base64.b64encode(kept).decode()}
        await self._documents.put(_key(letter.id), document)
        # Looked up last: an erasure that came before has not seen the letter, one that comes later will.
        if (user_id := letter.user_id) is not None:
            through = await self._users.erased_through(user_id)
            if through >= (letter.sequence or 1):
                await self.remove(letter.id)

    async def newest(self, limit: int) -> list[DeadLetter]:
        """The list, newest first."""
        return (await self._letters())[::-1][:limit]

    async def get(self, letter_id: str) -> tuple[DeadLetter, bytes] | None:
        """One, with the event as it came."""
        letter = next((one for one in await self._letters() if one.id == letter_id), None)
        document = (await self._documents.read(_key(letter_id))).document
        return None if letter is None or document is None else (letter, base64.b64decode(document["body"]))

    async def remove(self, letter_id: str) -> bool:
        """Removes one; False where there is none."""
        return await self._remove(lambda letter: letter.id == letter_id) > 0

    async def erase(self, user_id: str, through: int) -> int:
        """Removes those of a user up to a turn, and those that do not tell which turn they are; how many."""
        return await self._remove(lambda letter: letter.user_id == user_id and (letter.sequence or 1) <= through)

    async def _remove(self, which: Callable[[DeadLetter], bool]) -> int:
        return await self._change(lambda letters: [letter for letter in letters if not which(letter)])

    async def _letters(self) -> list[DeadLetter]:
        document = (await self._documents.read(LIST_KEY)).document
        return _letters(document) if document else []

    async def _change(self, change: Callable[[list[DeadLetter]], list[DeadLetter]]) -> int:
        """Changes the list, and removes the events that it no longer has; how many."""
        gone: set[str] = set()

        async def changed(found: Found) -> Document | None:
            nonlocal gone
            document = found.document or {"version": VERSION, "letters": []}
            letters = _letters(document)
            rest = change(letters)
            gone = {letter.id for letter in letters} - {letter.id for letter in rest}
            for letter_id in gone:
                await self._documents.delete(_key(letter_id))
            return None if rest == letters else document | {"letters": [letter.model_dump() for letter in rest]}

        async with self._changing:
            await self._documents.update(LIST_KEY, changed)
        return len(gone)


class _Data(BaseModel):
    """What can be read of an event that is none."""

    user_id: Any = None
    session_id: Any = None
    sequence: Any = None


class _Envelope(BaseModel):
    data: _Data = Field(default_factory=_Data)


def _letter(body: bytes) -> DeadLetter:
    try:
        parse(body)
        reason = UNTOLD
    except Malformed as malformed:
        reason = str(malformed)
    if len(body) > MAX_EVENT:
        reason = f"larger than {MAX_EVENT:,} bytes: only its beginning is kept"
    try:
        data = _Envelope.model_validate_json(body).data
    except ValidationError:
        data = _Data()
    return DeadLetter(
        id=_id(body),
        at=datetime.now(UTC).isoformat(),
        reason=reason[:500],
        bytes=len(body) if len(body) <= MAX_EVENT else HEAD,
        user_id=_readable(_ID, data.user_id),
        session_id=_readable(_ID, data.session_id),
        sequence=_readable(_SEQUENCE, data.sequence),
    )


def _letters(document: Document) -> list[DeadLetter]:
    return [DeadLetter.model_validate(letter) for letter in document["letters"]]


def _readable(kind: TypeAdapter[T], value: Any) -> T | None:
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def _id(body: bytes) -> str:
    """The same for the same event, whatever the sidecar puts into the envelope of a delivery."""
    told = body
    try:
        envelope = orjson.loads(body)
        if isinstance(envelope, dict) and "data" in envelope:
            told = orjson.dumps([envelope.get("id"), envelope["data"]], option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError):
        pass  # no JSON, or deeper than orjson writes
    return hashlib.sha256(told).hexdigest()[:32]


def _key(letter_id: str) -> str:
    return f"dead-letter-{letter_id}"
