"""Which sessions a user has, and through which turn they were erased: one document a user.

Both are in one document so that they have an order: who notes a session before the user is erased leaves it to the
erasure to find; who comes after is told that the turn is of before.

The document has the latest sessions; when it is full they go to a page of their own, so that noting one costs the same
however many there are.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from agent_memory_service.documents import VERSION, Document, Documents, Found

SESSIONS_PER_PAGE: Final = 64
AT_ONCE: Final = 8
"""Sessions that an erasure works on."""


class Place(NamedTuple):
    """Where a session is noted; none moves, except that an erasure may take it out."""

    page: int
    at: int


class Users:
    """The users' sessions and erasures."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def erased_through(self, user_id: str) -> int:
        """The sequence of the last turn that must be stored nowhere; 0 for a user who was never erased."""
        return _through((await self._documents.read(_key(user_id))).document)

    async def note(self, user_id: str, session_id: str, sequence: int) -> int:
        """Notes that a user has a session; what :meth:`erased_through` says.

        Nothing is noted for a turn that it covers. In any other case the document is written, also where the session is
        noted already: an erasure that is under way has to notice.

        Raises:
            Contended: others wrote each time.
        """
        through = 0

        async def noted(found: Found) -> Document | None:
            nonlocal through
            user = found.document or _new()
            through = _through(user)
            if sequence <= through:
                return None
            sessions: list[str] = user["sessions"]
            if session_id in sessions:
                return user
            if len(sessions) < SESSIONS_PER_PAGE:
                return user | {"sessions": [*sessions, session_id]}
            page = {"version": VERSION, "sessions": sessions}
            await self._documents.put(_page_key(user_id, user["pages"]), page)
            return user | {"pages": user["pages"] + 1, "sessions": [session_id]}

        await self._documents.update(_key(user_id), noted)
        return through

    async def sessions(self, user_id: str, limit: int, before: Place | None) -> tuple[list[str], Place | None]:
        """A user's sessions, those that began last first: ``limit`` of those before a place; the place that asks for
        those before them, ``None`` where there are none."""
        user = (await self._documents.read(_key(user_id))).document or _new()
        number = user["pages"] if before is None else min(before.page, user["pages"])
        end = before.at if before is not None and before.page == number else None
        found: list[tuple[Place, str]] = []
        while number >= 0 and len(found) <= limit:  # one more than is shown tells that there is one
            page = user
            if number < user["pages"]:
                page = (await self._documents.read(_page_key(user_id, number))).document or _new()
            sessions: list[str] = page["sessions"][:end]
            found += [(Place(number, index), sessions[index]) for index in reversed(range(len(sessions)))]
            number, end = number - 1, None
        more = found[limit - 1][0] if len(found) > limit else None
        return [session_id for _, session_id in found[:limit]], more

    async def bury(self, user_id: str, through: int) -> None:
        """From now on no turn up to ``through`` is stored.

        Raises:
            Contended: others wrote each time.
        """

        async def buried(found: Found) -> Document:
            user = found.document or _new()
            erased = {"through_sequence": max(through, _through(user)), "at": datetime.now(UTC).isoformat()}
            return user | {"erased": erased}

        await self._documents.update(_key(user_id), buried)

    async def erase_sessions(self, user_id: str, erase: Callable[[str], Awaitable[bool]]) -> int:
        """Has ``erase`` called for each session of a buried user, by pages: a repeat goes on where one ended.

        ``erase`` returns whether the user has turns of later in the session, which then stays noted.

        Returns:
            How many sessions are no longer noted.
        """
        at_once = asyncio.Semaphore(AT_ONCE)

        async def stays(session_id: str) -> bool:
            async with at_once:
                return await erase(session_id)

        forgotten = 0
        while True:
            found = await self._documents.read(_key(user_id))
            user = found.document or _new()
            last = user["pages"] - 1
            # The page after the last is one of an erasure, or of a writer, that broke off.
            await self._documents.delete(_page_key(user_id, last + 1))
            page = user if last < 0 else (await self._documents.read(_page_key(user_id, last))).document or _new()
            sessions: list[str] = page["sessions"]
            stay = await asyncio.gather(*(stays(session_id) for session_id in sessions))
            kept = [session_id for session_id, kept in zip(sessions, stay, strict=True) if kept]
            rest = {"sessions": kept} if last < 0 else {"pages": last, "sessions": [*user["sessions"], *kept]}
            if not await self._documents.write(_key(user_id), user | rest, found):
                continue  # a session was noted meanwhile
            forgotten += len(sessions) - len(kept)
            if last < 0:
                return forgotten
            await self._documents.delete(_page_key(user_id, last))


def _new() -> Document:
    return {"version": VERSION, "pages": 0, "sessions": []}


def _through(user: Document | None) -> int:
    return int(user["erased"]["through_sequence"]) if user is not None and "erased" in user else 0


def _key(user_id: str) -> str:
    return f"user-{user_id}"


def _page_key(user_id: str, number: int) -> str:
    # An id may hold "-" and digits, but no ":": the page of one user is never the document of another.
    return f"user-{user_id}:{number}"
