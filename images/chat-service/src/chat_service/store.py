"""Where a session is kept.

**The document**: Dapr's actor state over HTTP, fenced by ETag. Dapr does not stop an old activation from writing. Its
HTTP API honours an ETag on a state transaction (its gRPC and the SDK do not), and on Redis that is a count of the
writes to the key, which the document carries as ``rev``. So two activations of one actor can both try, and one is
refused.

**The receipts** of turns that left the document: plain state, one key a turn, so that a turn costs the same however
many there are. A receipt is the same whoever writes it, so it needs no fence. Its reply lasts as long as a key is
promised to be known; what remains tells that the key was used. Pages list a user's receipts, so that all can be
removed.

**Retention**, where it is set, is the TTL of all of these, from the last write of each. What is left of a user are the
counters, in a key of their own: a user who comes back counts on, so what the memory service knows of them stays true.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from daca_common.dapr import CREATE, FOR_EVER, DaprClient, DaprError
from daca_common.logs import pseudonym

from chat_service.document import Document, Exchange, Receipt

ACTOR_TYPE: Final = "UserSessionActor"

PROBED: Final = 32
"""Counts that are tried, from 1 and from the document's own, before a key is made anew."""

_log = logging.getLogger(__name__)


class ActiveElsewhere(Exception):
    """The actor is not active behind this sidecar (any more). Nothing was read or written."""


class DocumentStore:
    """Reads and writes the document of an actor that is active in this process."""

    def __init__(self, dapr: DaprClient, retention_seconds: int = 0) -> None:
        """A document lasts ``retention_seconds`` from its last write; 0: for ever, whatever was set before."""
        self._dapr = dapr
        self._retention_seconds = retention_seconds
        self._ttl = retention_seconds or FOR_EVER

    async def load(self, user_id: str) -> Document:
        """The stored document; an empty one for a new user.

        Raises:
            ActiveElsewhere: the actor has moved.
            DaprError, DaprUnavailable: it could not be read.
        """
        try:
            stored = await self._dapr.get_actor_state(ACTOR_TYPE, user_id, document_key(user_id))
            if stored is None and self._retention_seconds:
                counters = await self._dapr.get_actor_state(ACTOR_TYPE, user_id, counters_key(user_id))
                return Document.counting_on(counters) if counters else Document()
        except DaprError as error:
            raise _told(error) from error
        return Document.load(stored)

    async def save(self, user_id: str, document: Document) -> None:
        """Writes ``document`` if the stored one still is its predecessor (``rev`` one lower).

        Raises:
            ActiveElsewhere: the actor has moved.
            DaprError, DaprUnavailable: refused or unknown. Dapr tells a mismatch from no other error: load, then judge.
        """
        await self._save(user_id, document, document.rev - 1)

    async def save_where_the_count_differs(self, user_id: str, stored: Document, changed: Document) -> Document | None:
        """Writes ``changed`` over ``stored`` although the store's count of writes is not ``stored.rev``.

        That is so for good after a loss of data, a restore, or a write by somebody without an ETag: the count has
        started anew, or has moved alone to a little above the document's own. It cannot be read through Dapr, so it is
        looked for by trying, upwards. Every write changes the document, and before each try it is read again: while it
        is the same, so is the count. Another's write in between makes the count one that is not tried any more before
        the document has been read, and found to be another.

        Returns:
            What was written, ``rev`` and count in step again; ``None`` where the document has changed meanwhile.
        """
        for count in itertools.chain(range(1, PROBED + 1), range(stored.rev + 1, stored.rev + PROBED + 1)):
            if await self.load(user_id) != stored:
                return None
            found = replace(changed, rev=count + 1)
            try:
                await self._save(user_id, found, count)
            except DaprError as error:
                if not error.mismatch:
                    raise
                continue
            _log.warning(
                "the store's count of writes was not the document's; they are in step again",
                extra={"user": pseudonym(user_id), "document": stored.rev, "store": count},
            )
            return found
        # So far off that only a hand can have done it. No writer that keeps to the fence can write either, so the key
        # is made anew; two that do so in the same few milliseconds are all that could go wrong.
        if await self.load(user_id) != stored:
            return None
        found = replace(changed, rev=1)
        key = document_key(user_id)
        try:
            await self._dapr.replace_actor_state(ACTOR_TYPE, user_id, key, found.dump(), ttl_seconds=self._ttl)
        except DaprError as error:
            raise _told(error) from error
        _log.error("the document's key was made anew: no count of writes fitted it", extra={"user": pseudonym(user_id)})
        return found

    async def _save(self, user_id: str, document: Document, count: int) -> None:
        etag = str(count) if count else CREATE
        key, value = document_key(user_id), document.dump()
        counters = {counters_key(user_id): document.counters()} if self._retention_seconds else None
        try:
            await self._dapr.put_actor_state(
                ACTOR_TYPE, user_id, key, value, etag, ttl_seconds=self._ttl, beside=counters
            )
        except DaprError as error:
            raise _told(error) from error


@dataclass(frozen=True, slots=True)
class _Keys:
    receipt: str
    reply: str


class ReceiptStore:
    """The receipts of turns that are no longer in their user's document."""

    def __init__(self, dapr: DaprClient, store: str, key_seconds: int, retention_seconds: int = 0) -> None:
        """``key_seconds``: how long a reply is kept; ``retention_seconds``: and what tells that the key was used, 0:
        for ever."""
        self._dapr = dapr
        self._store = store
        self._key_seconds = key_seconds
        self._ttl = retention_seconds or None

    async def put(self, user_id: str, page: int, turns: Sequence[Exchange | Receipt]) -> None:
        """Stores receipts as one page. Repeated with the same page, or with more turns, it does no harm.

        Raises:
            DaprError, DaprUnavailable: they may not be stored.
        """
        lasting: dict[str, object] = {page_key(user_id, page): {"turn_ids": [turn.turn_id for turn in turns]}}
        replies: dict[str, object] = {}
        for turn in turns:
            keys = _keys(user_id, turn.turn_id)
            lasting[keys.receipt] = {
                "turn_no": turn.turn_no,
                "sequence": turn.sequence,
                "session_id": turn.session_id,
                "fingerprint": turn.fingerprint,
                "occurred_at": turn.occurred_at,
            }
            if turn.reply_text is not None:
                replies[keys.reply] = {"reply_text": turn.reply_text, "finish_reason": turn.finish_reason}
        if replies:
            await self._dapr.put_states(self._store, replies, ttl_seconds=self._key_seconds)
        await self._dapr.put_states(self._store, lasting, ttl_seconds=self._ttl)

    async def get(self, user_id: str, turn_id: str) -> Receipt | None:
        """The receipt of a turn; ``None`` where there is none.

        Raises:
            DaprError, DaprUnavailable: it could not be read.
        """
        keys = _keys(user_id, turn_id)
        receipt, _ = await self._dapr.get_state(self._store, keys.receipt)
        if receipt is None:
            return None
        reply, _ = await self._dapr.get_state(self._store, keys.reply)
        return Receipt(
            turn_id=turn_id,
            sequence=receipt["sequence"],
            session_id=receipt["session_id"],
            fingerprint=receipt["fingerprint"],
            turn_no=receipt["turn_no"],
            occurred_at=receipt["occurred_at"],
            reply_text=reply["reply_text"] if reply else None,
            finish_reason=reply.get("finish_reason", "stop") if reply else "stop",
        )

    async def erase(self, user_id: str, pages: int) -> int:
        """Removes all receipts of a user that their ``pages`` pages, and one that was not counted yet, list.

        Returns:
            How many were removed.

        Raises:
            DaprError, DaprUnavailable: some may be left; again, it goes on.
        """
        removed = 0
        for page in range(1, pages + 2):
            listed, _ = await self._dapr.get_state(self._store, page_key(user_id, page))
            for turn_id in listed["turn_ids"] if listed else ():
                keys = _keys(user_id, turn_id)
                await self._dapr.delete_state(self._store, keys.reply)
                await self._dapr.delete_state(self._store, keys.receipt)
                removed += 1
            await self._dapr.delete_state(self._store, page_key(user_id, page))
        return removed


def document_key(user_id: str) -> str:
    """The state key of a user's document."""
    return f"history-{user_id}"


def counters_key(user_id: str) -> str:
    """The state key of what is left of a user whose document has expired."""
    return f"counters-{user_id}"


def page_key(user_id: str, page: int) -> str:
    """The key of a page that lists receipts."""
    return f"receipts-{user_id}:{page}"


def _keys(user_id: str, turn_id: str) -> _Keys:
    # An id has no ":", so no two users' keys are the same.
    return _Keys(f"receipt-{user_id}:{turn_id}", f"reply-{user_id}:{turn_id}")


def _told(error: DaprError) -> Exception:
    return ActiveElsewhere() if error.code == "ERR_ACTOR_INSTANCE_MISSING" else error
