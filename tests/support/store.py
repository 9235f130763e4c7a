"""What a session is kept in, in memory: the real ones' rules, and faults on demand."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chat_service.document import Document, Exchange, Receipt
from chat_service.session import Session, SessionHost
from chat_service.store import PROBED, ActiveElsewhere
from daca_common.dapr import DaprError, DaprUnavailable


@dataclass
class _Entry:
    document: Document
    count: int
    """Of writes: the ETag."""


class MemoryStore:
    """Stands in for ``chat_service.store.DocumentStore``, with Redis' rule: a key that is missing takes any ETag, and
    counts from 1; another is written by whoever names its count."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.faults: list[str] = []
        """Of the next writes, in order: ``lost before`` or ``lost after`` they take effect, empty for none."""
        self.writes = 0
        self.moved: set[str] = set()
        """Users whose actor is active elsewhere."""

    def of(self, user_id: str) -> Document:
        """What is stored for a user."""
        entry = self.entries.get(user_id)
        return entry.document if entry else Document()

    async def load(self, user_id: str) -> Document:
        await asyncio.sleep(0)
        if user_id in self.moved:
            raise ActiveElsewhere
        return self.of(user_id)

    async def save(self, user_id: str, document: Document) -> None:
        await self._save(user_id, document, document.rev - 1)

    async def save_where_the_count_differs(self, user_id: str, stored: Document, changed: Document) -> Document | None:
        for count in itertools.chain(range(1, PROBED + 1), range(stored.rev + 1, stored.rev + PROBED + 1)):
            if await self.load(user_id) != stored:
                return None
            found = replace(changed, rev=count + 1)
            try:
                await self._save(user_id, found, count)
            except DaprError:
                continue
            return found
        if await self.load(user_id) != stored:
            return None
        self.entries[user_id] = _Entry(replace(changed, rev=1), 1)
        return replace(changed, rev=1)

    async def _save(self, user_id: str, document: Document, count: int) -> None:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost before":
            raise DaprUnavailable("broken off")
        if user_id in self.moved:
            raise ActiveElsewhere
        entry = self.entries.get(user_id)
        if entry is not None and entry.count != count:
            raise DaprError(500, "ERR_ACTOR_STATE_TRANSACTION_SAVE", "failed to set key")
        self.entries[user_id] = _Entry(document, entry.count + 1 if entry else 1)
        self.writes += 1
        if fault == "lost after":
            raise DaprUnavailable("broken off")


class MemoryReceipts:
    """Stands in for ``chat_service.store.ReceiptStore``."""

    def __init__(self) -> None:
        self.pages: dict[tuple[str, int], list[str]] = {}
        self.receipts: dict[tuple[str, str], Receipt] = {}
        self.down = False

    async def put(self, user_id: str, page: int, turns: Sequence[Exchange | Receipt]) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise DaprUnavailable("broken off")
        self.pages[user_id, page] = [turn.turn_id for turn in turns]
        for turn in turns:
            self.receipts[user_id, turn.turn_id] = Receipt(
                turn.turn_id,
                turn.sequence,
                turn.session_id,
                turn.fingerprint,
                turn.turn_no,
                turn.occurred_at,
                turn.reply_text,
            )

    async def get(self, user_id: str, turn_id: str) -> Receipt | None:
        await asyncio.sleep(0)
        return self.receipts.get((user_id, turn_id))

    async def erase(self, user_id: str, pages: int) -> int:
        removed = 0
        for page in range(1, pages + 2):
            for turn_id in self.pages.pop((user_id, page), []):
                del self.receipts[user_id, turn_id]
                removed += 1
        return removed

    def expire(self) -> None:
        """All replies are older than a key is known."""
        self.receipts = {key: replace(receipt, reply_text=None) for key, receipt in self.receipts.items()}


class MemoryJournal:
    """Stands in for ``chat_service.journal.Journal``: who is in it, and what was done, in order."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        """Covered, and not released since."""
        self.owed: set[str] = set()
        """Noted or covered, and not released since."""
        self.done: list[str] = []
        self.down = False

    def note(self, user_id: str) -> None:
        self.done.append(f"note {user_id}")
        self.owed.add(user_id)

    async def cover(self, user_id: str) -> None:
        if self.down:
            raise DaprUnavailable("broken off")
        self.done.append(f"cover {user_id}")
        self.users.add(user_id)
        self.owed.add(user_id)

    def release(self, user_id: str) -> None:
        self.done.append(f"release {user_id}")
        self.users.discard(user_id)
        self.owed.discard(user_id)


class Outboxes:
    """Stands in for the publisher: the sessions that had something to publish."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def start(self, session: Session) -> None:
        if session not in self.sessions:
            self.sessions.append(session)


class Pods:
    """Hosts of sessions that share their stores, as pods do."""

    def __init__(self, *, lease_seconds: float = 5.0, queue_limit: int = 64) -> None:
        self.store = MemoryStore()
        self.receipts = MemoryReceipts()
        self.journal = MemoryJournal()
        self.outboxes = Outboxes()
        self._limits = {"lease_seconds": lease_seconds, "queue_limit": queue_limit}
        self._hosts: dict[str, SessionHost] = {}

    def host(self, pod: str = "pod-a") -> SessionHost:
        """The host of a pod; the same one each time."""
        if pod not in self._hosts:
            self._hosts[pod] = SessionHost(
                name=pod,
                address=f"{pod}:8010",
                documents=self.store,
                receipts=self.receipts,
                journal=self.journal,
                publisher=self.outboxes,
                **self._limits,  # type: ignore[arg-type]
            )
        return self._hosts[pod]

    async def session(self, pod: str = "pod-a", user_id: str = "alice") -> Session:
        """A user's session, active in a pod."""
        return await self.host(pod).activate(user_id)
