"""The state of a session: one document, one key, one atomic write. Pure: nothing here waits or talks to anybody.

A document is never changed in place: each operation returns a new one, so a write that fails leaves nothing behind.
Two counters:

* ``rev`` moves with every write (the writer moves it) and is the ETag of the stored value: Redis counts writes from 1.
* ``turn_no`` moves when the history changes and is what a completion is checked against, so that bookkeeping (marking
  events as published, later a summary) never makes a model run again.

``exchanges`` holds the window, and before it what has been committed but not yet been published: the outbox is not a
second list but the exchanges whose ``published`` is false.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Self

WINDOW: Final = 5
"""Exchanges that an answer is given from."""

RECEIPTS: Final = 50
"""Turns remembered after they left the window, so that a late retry is not answered a second time."""

BACKLOG: Final = 100
"""Unpublished exchanges a document holds before its user has to wait for the broker."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of text a document holds. A window of five of the largest exchanges there can be stays below it."""

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Exchange:
    """A committed turn: what the user said and what was answered."""

    turn_id: str
    turn_no: int
    sequence: int
    session_id: str
    user_text: str
    reply_text: str
    fingerprint: str
    occurred_at: str
    """RFC 3339, UTC; never earlier than that of the turn before."""
    published: bool = False

    @property
    def size(self) -> int:
        """Bytes of text."""
        return len(self.user_text.encode()) + len(self.reply_text.encode())


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is left of a turn that is no longer in ``exchanges``."""

    turn_id: str
    sequence: int
    session_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Document:
    """The state of one session. ``Document()`` is that of a user who has never said anything."""

    rev: int = 0
    turn_no: int = 0
    sequence: int = 0
    """Turns committed, ever. Clearing the history does not turn it back."""
    cleared_through: int = 0
    """Exchanges up to this ``turn_no`` are history no more; they are kept only until they are published."""
    running_summary: str = ""
    exchanges: tuple[Exchange, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    version: int = field(default=VERSION)

    @classmethod
    def load(cls, stored: dict[str, Any] | None) -> Self:
        """The document that ``dump`` made; an empty one for ``None``.

        Raises:
            ValueError: a later version of this service wrote it.
        """
        if stored is None:
            return cls()
        if stored["version"] > VERSION:
            raise ValueError(
                f"document version {stored['version']}: a later release wrote it; this one reads {VERSION}"
            )
        return cls(
            **stored
            | {
                "exchanges": tuple(Exchange(**item) for item in stored["exchanges"]),
                "receipts": tuple(Receipt(**item) for item in stored["receipts"]),
            }
        )

    def dump(self) -> dict[str, Any]:
        """The document as JSON-able values."""
        return asdict(self)

    @property
    def window(self) -> tuple[Exchange, ...]:
        """The last exchanges of the history, oldest first."""
        return tuple(item for item in self.exchanges if item.turn_no > self.cleared_through)[-WINDOW:]

    @property
    def outbox(self) -> tuple[Exchange, ...]:
        """Exchanges whose event has yet to be published, oldest first."""
        return tuple(item for item in self.exchanges if not item.published)

    @property
    def full(self) -> bool:
        """Whether the outbox has no room for one more turn."""
        outbox = self.outbox
        return len(outbox) >= BACKLOG or sum(item.size for item in outbox) >= MAX_BYTES

    def find(self, turn_id: str) -> Exchange | Receipt | None:
        """What is known of a committed turn; an :class:`Exchange` still has its reply."""
        known: tuple[Exchange | Receipt, ...] = (*self.exchanges, *self.receipts)
        return next((item for item in known if item.turn_id == turn_id), None)

    def commit(
        self, *, turn_id: str, session_id: str, user_text: str, reply_text: str, fingerprint: str, now: str
    ) -> Self:
        """The history with one more exchange."""
        exchange = Exchange(
            turn_id=turn_id,
            turn_no=self.turn_no + 1,
            sequence=self.sequence + 1,
            session_id=session_id,
            user_text=user_text,
            reply_text=reply_text,
            fingerprint=fingerprint,
            # Hosts' clocks differ, and a transcript is sorted by time.
            occurred_at=max(now, self.exchanges[-1].occurred_at) if self.exchanges else now,
        )
        return replace(
            self, turn_no=exchange.turn_no, sequence=exchange.sequence, exchanges=(*self.exchanges, exchange)
        ).settled()

    def clear(self) -> Self:
        """An empty history. Counters and receipts stay: the key is a tombstone, never deleted, or its ETag would go."""
        turn_no = self.turn_no + 1
        return replace(self, turn_no=turn_no, cleared_through=turn_no, running_summary="").settled()

    def publish(self, turn_ids: frozenset[str]) -> Self:
        """The same history, with the events of these turns marked as published."""
        marked = tuple(replace(item, published=True) if item.turn_id in turn_ids else item for item in self.exchanges)
        return replace(self, exchanges=marked).settled()

    def settled(self) -> Self:
        """Without what nobody needs any more: published exchanges outside the window leave a receipt."""
        window = {item.turn_id for item in self.window}
        kept = tuple(item for item in self.exchanges if item.turn_id in window or not item.published)
        dropped = tuple(
            Receipt(item.turn_id, item.sequence, item.session_id, item.fingerprint)
            for item in self.exchanges
            if item.turn_id not in window and item.published
        )
        return replace(self, exchanges=kept, receipts=(*self.receipts, *dropped)[-RECEIPTS:])
