"""The transcript of every session: complete, in order, each turn once.

A session's turns are kept in pages of a few sequence numbers each, so that an append costs the same however long the
transcript is, and a repeated event always meets the page that knows it. An index lists the pages. It is written before
a page is made: an index that names a page which never came does no harm, a page that no index names would be lost.
"""

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import Final, TypedDict

from daca_common.conversation_updated import ConversationUpdated

from agent_memory_service.documents import Document, Documents

VERSION: Final = 1
TURNS_PER_PAGE: Final = 4
"""So many turns of the longest texts, 100,000 characters of four bytes each way, fit the sidecar's 4 MiB of a body."""
READS_AT_ONCE: Final = 16


class Turn(TypedDict):
    """A turn as it is stored. Users may share a session, so each turn names its own."""

    event_id: str
    turn_id: str
    user_id: str
    sequence: int
    occurred_at: str
    user_message: str
    assistant_reply: str


class Transcripts:
    """The transcripts of all sessions."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    async def append(self, event: ConversationUpdated) -> bool:
        """Adds a turn; False where it was there already.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached. The turn may have been added; a repeat tells.
            Contended: others wrote each time.
        """
        number = event.sequence // TURNS_PER_PAGE

        async def appended(page: Document | None) -> Document | None:
            if page is None:
                await self._list(event.session_id, number)
            turns: list[Turn] = page["turns"] if page else []
            if any(turn["event_id"] == event.event_id for turn in turns):
                return None
            turn = event.model_dump(exclude={"event_type", "session_id"})
            return {"version": VERSION, "turns": [*turns, turn]}

        return await self._documents.update(_page_key(event.session_id, number), appended)

    async def read(self, session_id: str) -> list[Turn]:
        """A session's turns, oldest first; none for a session that nobody has heard of.

        Raises:
            DaprError, DaprUnavailable: the store cannot be reached.
        """
        index, _ = await self._documents.read(_index_key(session_id))
        at_once = asyncio.Semaphore(READS_AT_ONCE)

        async def turns(number: int) -> list[Turn]:
            async with at_once:
                page, _ = await self._documents.read(_page_key(session_id, number))
            return page["turns"] if page else []

        pages = await asyncio.gather(*(turns(number) for number in (index["pages"] if index else ())))
        return _in_order([turn for page in pages for turn in page])

    async def _list(self, session_id: str, number: int) -> None:
        async def listed(index: Document | None) -> Document | None:
            pages: list[int] = index["pages"] if index else []
            return None if number in pages else {"version": VERSION, "pages": [*pages, number]}

        await self._documents.update(_index_key(session_id), listed)


def _index_key(session_id: str) -> str:
    return f"transcript-{session_id}"


def _page_key(session_id: str, number: int) -> str:
    # An id may hold "-" and digits, but no ":": the page of one session is never the index of another.
    return f"transcript-{session_id}:{number}"


def _in_order(turns: list[Turn]) -> list[Turn]:
    """By time; but the turns of one user in the order of their sequence, whatever the clocks of their pods said."""
    by_user: dict[str, list[Turn]] = defaultdict(list)
    for turn in sorted(turns, key=lambda turn: turn["sequence"]):
        by_user[turn["user_id"]].append(turn)
    timed: list[tuple[datetime, int, Turn]] = []
    for own in by_user.values():
        latest = datetime.fromisoformat(own[0]["occurred_at"])
        for turn in own:
            latest = max(latest, datetime.fromisoformat(turn["occurred_at"]))
            timed.append((latest, turn["sequence"], turn))
    return [turn for _, _, turn in sorted(timed, key=lambda item: item[:2])]
