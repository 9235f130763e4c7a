"""The state of a session: one document, one key, one atomic write. Pure: nothing here waits or talks to anybody.

A document is never changed in place: each operation returns a new one, so a write that fails leaves nothing behind.
Two counters:

* ``rev`` moves with every write (the writer moves it) and is the ETag of the stored value: Redis counts writes from 1.
* ``turn_no`` moves when the history changes and is what a completion is checked against, so that bookkeeping (marking
  events as published, a summary) never makes a model run again.

``exchanges`` holds the window, and before it what cannot go yet: what is not published (the outbox), what has no
receipt of its own yet, and what the running summary does not hold yet. None of the three is a second list.

A later release may add fields; this one keeps them as they are (``more``).
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Self

import orjson

WINDOW: Final = 5
"""Exchanges that an answer is given from."""

BACKLOG: Final = 100
"""Unpublished exchanges a document holds before its user has to wait for the broker."""

MAX_BYTES: Final = 10 * 1024 * 1024
"""Bytes of JSON from which on a document takes no further turn. With one more of the largest exchanges (100,000
characters each way, six bytes each where JSON escapes them) it stays below what the sidecar takes (16 MiB)."""

OVERFLOW: Final = 20
OVERFLOW_BYTES: Final = 1024 * 1024
"""Exchanges, and their bytes of JSON, that wait for the running summary. The oldest go without it beyond that: a model
that is down must not make the document grow."""

CANCELLED: Final = 16
"""Turns remembered as cancelled. One matters only while its completion may still be on its way."""

VERSION: Final = 2


@dataclass(frozen=True)
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
    """The broker has taken its event."""
    receipted: bool = False
    """Its receipt is stored apart."""
    finish_reason: str = "stop"
    """Why the reply ended."""
    more: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def size(self) -> int:
        """Bytes of JSON."""
        return len(orjson.dumps(self.dump()))

    def dump(self) -> dict[str, Any]:
        """The exchange as JSON-able values."""
        dumped = {**self.more, **{name: getattr(self, name) for name in _EXCHANGE}}
        if self.finish_reason == "stop":  # nearly always
            del dumped["finish_reason"]
        return dumped

    @classmethod
    def load(cls, stored: dict[str, Any]) -> Self:
        """The exchange that ``dump`` made."""
        return cls(
            **{name: stored[name] for name in _EXCHANGE if name in stored},
            more={name: value for name, value in stored.items() if name not in _EXCHANGE},
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What tells a late retry that its turn is committed. ``reply_text`` is ``None`` once it is no longer kept."""

    turn_id: str
    sequence: int
    session_id: str
    fingerprint: str
    turn_no: int = 0
    occurred_at: str = ""
    reply_text: str | None = None
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Document:
    """The state of one session. ``Document()`` is that of a user who has never said anything."""

    rev: int = 0
    turn_no: int = 0
    sequence: int = 0
    """Turns committed, ever. Neither clearing the history nor erasing the user turns it back."""
    cleared_through: int = 0
    """Exchanges up to this ``turn_no`` are history no more; they are kept only until they may go."""
    summarized_through: int = 0
    """``running_summary`` tells of the turns up to this ``turn_no`` that are no longer in the window."""
    running_summary: str = ""
    exchanges: tuple[Exchange, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    """Left by version 1, which kept them here and without their replies."""
    receipt_pages: int = 0
    """Pages of receipts that are stored apart."""
    cancelled: tuple[str, ...] = ()
    """Ids of turns that were cancelled and must not be committed; the latest."""
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, stored: dict[str, Any] | None) -> Self:
        """The document that ``dump`` made, in this release or an earlier one; an empty one for ``None``.

        Raises:
            ValueError: a later version of this service wrote it.
        """
        if stored is None:
            return cls()
        if stored["version"] > VERSION:
            raise ValueError(
                f"document version {stored['version']}: a later release wrote it; this one reads {VERSION}"
            )
        known = {name: stored[name] for name in _DOCUMENT if name in stored}
        known["exchanges"] = tuple(Exchange.load(item) for item in stored["exchanges"])
        known["receipts"] = tuple(Receipt(**item) for item in stored.get("receipts", ()))
        if stored["version"] == 1:  # its fingerprints were made otherwise: an empty one fits every message
            known["exchanges"] = tuple(replace(item, fingerprint="") for item in known["exchanges"])
            known["receipts"] = tuple(replace(item, fingerprint="") for item in known["receipts"])
        known["cancelled"] = tuple(stored.get("cancelled", ()))
        more = {name: value for name, value in stored.items() if name not in _DOCUMENT and name != "version"}
        return cls(**known, more=more)

    def dump(self) -> dict[str, Any]:
        """The document as JSON-able values."""
        shown = {name: getattr(self, name) for name in _DOCUMENT}
        shown["exchanges"] = [item.dump() for item in self.exchanges]
        return {**self.more, **shown, "version": VERSION}

    @classmethod
    def counting_on(cls, counters: dict[str, int]) -> Self:
        """The document of a user whose last one has expired; ``counters()`` of that is all that is left."""
        turn_no = counters["turn_no"]
        return cls(turn_no=turn_no, sequence=counters["sequence"], cleared_through=turn_no, summarized_through=turn_no)

    def counters(self) -> dict[str, int]:
        """What must outlive the document: its turns are numbered on from there."""
        return {"turn_no": self.turn_no, "sequence": self.sequence}

    @property
    def window(self) -> tuple[Exchange, ...]:
        """The last exchanges of the history, oldest first."""
        return tuple(item for item in self.exchanges if item.turn_no > self.cleared_through)[-WINDOW:]

    @property
    def outbox(self) -> tuple[Exchange, ...]:
        """Exchanges whose event has yet to be published, oldest first."""
        return tuple(item for item in self.exchanges if not item.published)

    @property
    def departing(self) -> tuple[Exchange, ...]:
        """Exchanges that are no longer in the window, oldest first."""
        first = self.window[0].turn_no if self.window else self.turn_no + 1
        return tuple(item for item in self.exchanges if item.turn_no < first)

    @property
    def overflow(self) -> tuple[Exchange, ...]:
        """Exchanges that left the window and that the running summary does not hold yet, oldest first."""
        through = max(self.cleared_through, self.summarized_through)
        return tuple(item for item in self.departing if item.turn_no > through)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more turn."""
        return len(self.outbox) >= BACKLOG or sum(item.size for item in self.exchanges) >= MAX_BYTES

    def find(self, turn_id: str) -> Exchange | Receipt | None:
        """What is known here of a committed turn; an :class:`Exchange` still has its reply."""
        known: tuple[Exchange | Receipt, ...] = (*self.exchanges, *self.receipts)
        return next((item for item in known if item.turn_id == turn_id), None)

    def commit(
        self,
        *,
        turn_id: str,
        session_id: str,
        user_text: str,
        reply_text: str,
        fingerprint: str,
        now: str,
        finish_reason: str = "stop",
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
            finish_reason=finish_reason,
        )
        return replace(
            self, turn_no=exchange.turn_no, sequence=exchange.sequence, exchanges=(*self.exchanges, exchange)
        )

    def clear(self) -> Self:
        """An empty history. Counters stay: the key is a tombstone, never deleted, or its ETag would go."""
        turn_no = self.turn_no + 1
        return replace(self, turn_no=turn_no, cleared_through=turn_no, summarized_through=turn_no, running_summary="")

    def erase(self, open_turn: str | None) -> Self:
        """Nothing of what was said, not even what is still to be published; the counters and the key stay.

        The turn that is open meanwhile is of what was said, and is refused.
        """
        cancelled = (open_turn,) if open_turn else ()
        return replace(self.clear(), exchanges=(), receipts=(), receipt_pages=0, cancelled=cancelled, more={})

    def cancel(self, turn_id: str) -> Self:
        """The same history; a completion of the turn that is still on its way is refused."""
        return replace(self, cancelled=(*self.cancelled, turn_id)[-CANCELLED:])

    def summarize(self, text: str, through: int) -> Self:
        """The same history, with a running summary that holds what left the window up to turn ``through``."""
        return replace(self, running_summary=text, summarized_through=max(through, self.summarized_through))

    @property
    def unreceipted(self) -> tuple[Exchange | Receipt, ...]:
        """Turns that left the window and have no receipt of their own yet."""
        return (*self.receipts, *(item for item in self.departing if not item.receipted))

    def settle(self, *, published: frozenset[str], receipted: frozenset[str]) -> Self:
        """The same history, with what is known of these turns written down, and without what nobody needs any more.

        An exchange goes when it has left the window, its event is published, its receipt is stored apart, and the
        running summary holds it, or there is too much to wait for that.
        """
        new_page = receipted.intersection(item.turn_id for item in self.unreceipted)
        marked = tuple(
            replace(
                item,
                published=item.published or item.turn_id in published,
                receipted=item.receipted or item.turn_id in receipted,
            )
            if item.turn_id in published or item.turn_id in receipted
            else item
            for item in self.exchanges
        )
        document = replace(
            self,
            exchanges=marked,
            receipts=tuple(item for item in self.receipts if item.turn_id not in receipted),
            receipt_pages=self.receipt_pages + bool(new_page),
        )
        waiting = document.overflow[-OVERFLOW:]
        while sum(item.size for item in waiting) > OVERFLOW_BYTES:
            waiting = waiting[1:]
        wanted = {item.turn_no for item in (*document.window, *waiting)}
        kept = tuple(item for item in marked if item.turn_no in wanted or not item.published or not item.receipted)
        return replace(document, exchanges=kept)


_EXCHANGE: Final = (
    "turn_id",
    "turn_no",
    "sequence",
    "session_id",
    "user_text",
    "reply_text",
    "fingerprint",
    "occurred_at",
    "published",
    "receipted",
    "finish_reason",
)
_DOCUMENT: Final = (
    "rev",
    "turn_no",
    "sequence",
    "cleared_through",
    "summarized_through",
    "running_summary",
    "exchanges",
    "receipts",
    "receipt_pages",
    "cancelled",
)
