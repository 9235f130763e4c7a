"""A user's session while it is active in this process: who may take the next turn, and what is committed.

State and its invariants; no I/O but the document store. Every answer carries a ``status``, the ``host`` and the
``activation_id``: without them nobody can count double activations or check where an actor lives.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import uuid4

from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.ids import Id
from pydantic import BaseModel, ConfigDict, Field

from chat_service.document import Document, Exchange, Receipt
from chat_service.store import DocumentStore

_log = logging.getLogger(__name__)

MAX_TEXT: Final = 100_000
"""Characters of a message or a reply."""

WRITE_ATTEMPTS: Final = 4
QUEUE_AGES_OUT: Final = 2.0
"""Seconds after which a waiting turn that has not asked again loses its place."""

Answer = dict[str, Any]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Arguments(BaseModel):
    """What a method is called with: one JSON object; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class TurnRef(Arguments):
    """``RenewTurn`` and ``AbandonTurn``: the turn and the lease it was granted under."""

    turn_id: Id
    lease_token: str


class BeginTurn(Arguments):
    """``fingerprint`` tells whether a retry asks the same thing; ``claim`` names one attempt of one caller, so that a
    call that Dapr delivers twice is granted once."""

    turn_id: Id
    fingerprint: str = ""
    claim: str = ""


class CompleteTurn(Arguments):
    """``turn_no`` as it was granted: the number this turn gets, if no other got it meanwhile."""

    turn_id: Id
    lease_token: str = ""
    turn_no: int
    session_id: Id
    user_text: Text
    reply_text: Text
    fingerprint: str = ""


class AddMessage(Arguments):
    """A commit without a turn: the tutorial's method. Ids are made where they are missing."""

    user_text: Text
    reply_text: Text
    turn_id: Id | None = None
    session_id: Id | None = None


@dataclass(slots=True)
class _Lease:
    turn_id: str
    claim: str
    token: str
    expires_at: float


class Session:
    """One activation: the document as last read or written, the lease, the queue. Lives in memory only.

    Neither Dapr nor the SDK keeps a method alone on an activation (a waiter that hangs up frees Dapr's queue, and the
    SDK has no lock), hence ``_lock``.
    """

    def __init__(self, user_id: str, host: "SessionHost") -> None:
        self.user_id = user_id
        self.activation_id = uuid4().hex
        self.sent: frozenset[str] = frozenset()
        """Turn ids whose event the broker has taken, but whose exchange does not say so yet."""
        self._host = host
        self._lock = asyncio.Lock()
        self._document: Document | None = None
        self._lease: _Lease | None = None
        self._queue: dict[str, float] = {}

    async def document(self) -> Document:
        """The document as this activation knows it."""
        async with self._lock:
            return await self._load()

    async def begin(self, arguments: BeginTurn) -> Answer:
        """Grants the turn, or says why not: ``replayed``, ``mismatch``, ``busy`` or ``full``. Writes nothing."""
        async with self._lock:
            document = await self._load()
            if (known := document.find(arguments.turn_id)) is not None:
                self._queue.pop(arguments.turn_id, None)
                return self._replayed(known, arguments.fingerprint)
            if document.full:
                return self._answer("full", retry_after_ms=1000)
            now = time.monotonic()
            self._age_out(now)
            if (place := self._place(arguments, now)) > 0:
                return self._answer("busy", place=place, retry_after_ms=min(250, 10 * place))
            return self._answer(
                "granted",
                turn_no=document.turn_no + 1,
                sequence=document.sequence + 1,
                window=[_shown(exchange) for exchange in document.window],
                running_summary=document.running_summary,
                lease_token=self._grant(arguments, now).token,
                lease_seconds=self._host.lease_seconds,
            )

    async def renew(self, arguments: TurnRef) -> Answer:
        """Makes the lease last longer: ``renewed``, or ``lost`` where another turn has it. Writes nothing."""
        async with self._lock:
            if not self._holds(arguments):
                return self._answer("lost")
            assert self._lease is not None  # noqa: S101 - _holds
            self._lease.expires_at = time.monotonic() + self._host.lease_seconds
            return self._answer("renewed", lease_seconds=self._host.lease_seconds)

    async def abandon(self, arguments: TurnRef) -> Answer:
        """Frees the session for the next turn: ``abandoned`` or ``lost``. Writes nothing."""
        async with self._lock:
            if not self._holds(arguments):
                return self._answer("lost")
            self._lease = None
            return self._answer("abandoned")

    async def complete(self, arguments: CompleteTurn) -> Answer:
        """Commits the turn: ``committed``, ``replayed`` (it was before), ``mismatch``, or ``stale``: begin again.

        Safety rests on ``turn_no`` and the store's ETag. An expired lease is no reason to refuse a turn that nobody
        has overtaken.
        """

        def judge(document: Document) -> Document | Answer:
            if (known := document.find(arguments.turn_id)) is not None:
                return self._replayed(known, arguments.fingerprint)
            if arguments.turn_no != document.turn_no + 1:
                return self._answer("stale", turn_no=document.turn_no + 1)
            return document.commit(
                turn_id=arguments.turn_id,
                session_id=arguments.session_id,
                user_text=arguments.user_text,
                reply_text=arguments.reply_text,
                fingerprint=arguments.fingerprint,
                now=_now(),
            )

        async with self._lock:
            answer = await self._commit(judge)
            if self._lease is not None and self._lease.turn_id == arguments.turn_id:
                self._lease = None
            return answer

    async def add_message(self, arguments: AddMessage) -> Answer:
        """Commits an exchange without a lease. A turn that is open meanwhile finds itself stale."""
        turn_id = arguments.turn_id or uuid4().hex
        session_id = arguments.session_id or uuid4().hex

        def judge(document: Document) -> Document | Answer:
            if (known := document.find(turn_id)) is not None:
                return self._replayed(known, "")
            return document.commit(
                turn_id=turn_id,
                session_id=session_id,
                user_text=arguments.user_text,
                reply_text=arguments.reply_text,
                fingerprint="",
                now=_now(),
            )

        async with self._lock:
            return await self._commit(judge)

    def invalid(self, errors: list[dict[str, str]]) -> Answer:
        """The answer to arguments that are wrong: ``[{field, detail}]``."""
        return self._answer("invalid", errors=errors)

    async def history(self) -> list[Answer]:
        """The window, oldest first: ``[{user_text, reply_text, ...}]``."""
        return [_shown(exchange) for exchange in (await self.document()).window]

    async def clear(self) -> Answer:
        """Empties the history. What was said stays in the transcript, and an open turn finds itself stale."""
        async with self._lock:
            outcome = await self._write(Document.clear)
            assert isinstance(outcome, Document)  # noqa: S101 - clearing is never refused
        return self._answer("cleared", turn_no=outcome.turn_no)

    async def mark_published(self) -> None:
        """Writes down which events the broker has taken, where no commit has done so on its way."""

        def judge(document: Document) -> Document | Answer:
            return document if any(item.turn_id in self.sent for item in document.outbox) else {}

        async with self._lock:
            await self._write(judge)

    async def _load(self) -> Document:
        if self._document is None:
            self._document = await self._host.store.load(self.user_id)
        return self._document

    async def _write(self, judge: Callable[[Document], Document | Answer]) -> Document | Answer:
        """Writes what ``judge`` makes of the document, or returns its answer where it makes none.

        After a refused or unknown write the document is read again and judged again. A turn is looked for by its id
        before anything else, so a write that did land is recognised as ours.

        Raises:
            DaprError, DaprUnavailable: unknown even after several attempts.
        """
        for attempt in range(WRITE_ATTEMPTS):
            document = await self._load()
            outcome = judge(document)
            if not isinstance(outcome, Document):
                return outcome
            sent = self.sent  # what was sent since the last write is written down on the way
            changed = replace(outcome.publish(sent), rev=document.rev + 1)
            try:
                await self._host.store.save(self.user_id, changed)
            except (DaprError, DaprUnavailable) as error:
                self._document = None
                if attempt + 1 == WRITE_ATTEMPTS:
                    raise
                _log.info("write refused or unknown, reading again", extra={"error": str(error)})
                await asyncio.sleep(0.02 * 2**attempt)
            else:
                self._document = changed
                self.sent -= sent
                return changed
        raise AssertionError("unreachable")

    async def _commit(self, judge: Callable[[Document], Document | Answer]) -> Answer:
        outcome = await self._write(judge)
        # Also where the answer is "replayed": it may be our own write, which landed although its answer got lost.
        if self._document is not None and self._document.outbox:
            self._host.on_outbox(self)
        if not isinstance(outcome, Document):
            return outcome
        exchange = outcome.exchanges[-1]
        return self._answer("committed", **_turn(exchange), reply_text=exchange.reply_text)

    def _replayed(self, known: Exchange | Receipt, fingerprint: str) -> Answer:
        if fingerprint and known.fingerprint and known.fingerprint != fingerprint:
            return self._answer("mismatch")
        if isinstance(known, Exchange):
            return self._answer("replayed", **_turn(known), reply_text=known.reply_text)
        return self._answer("replayed", session_id=known.session_id, sequence=known.sequence, reply_text=None)

    def _place(self, arguments: BeginTurn, now: float) -> int:
        """How many turns are before this one; it has joined the queue if that is not none."""
        lease = self._lease
        held = lease is not None and lease.expires_at > now
        if held and lease is not None and (lease.turn_id, lease.claim) == (arguments.turn_id, arguments.claim):
            return 0
        if not held and next(iter(self._queue), arguments.turn_id) == arguments.turn_id:
            return 0
        self._queue[arguments.turn_id] = now  # a key that is there keeps its place
        return list(self._queue).index(arguments.turn_id) + (1 if held else 0)

    def _grant(self, arguments: BeginTurn, now: float) -> _Lease:
        self._queue.pop(arguments.turn_id, None)
        lease = self._lease
        if lease is None or (lease.turn_id, lease.claim) != (arguments.turn_id, arguments.claim):
            lease = self._lease = _Lease(arguments.turn_id, arguments.claim, secrets.token_hex(8), 0)
        lease.expires_at = now + self._host.lease_seconds
        return lease

    def _holds(self, arguments: TurnRef) -> bool:
        lease = self._lease
        return lease is not None and (lease.turn_id, lease.token) == (arguments.turn_id, arguments.lease_token)

    def _age_out(self, now: float) -> None:
        for turn_id in [turn_id for turn_id, asked in self._queue.items() if asked < now - QUEUE_AGES_OUT]:
            del self._queue[turn_id]

    def _answer(self, status: str, **fields: Any) -> Answer:
        return {"status": status, **fields, "host": self._host.name, "activation_id": self.activation_id}


class SessionHost:
    """The sessions that are active in this process, by user id.

    They are kept here and not in the SDK's actor objects, because the SDK makes two of them when two first calls of an
    actor meet.
    """

    def __init__(
        self,
        name: str,
        store: DocumentStore,
        lease_seconds: float,
        on_outbox: Callable[[Session], None],
        on_deactivate: Callable[[Session], None],
    ) -> None:
        """``name`` is the pod's. ``on_outbox`` is called whenever a session has events to publish."""
        self.name = name
        self.store = store
        self.lease_seconds = lease_seconds
        self.on_outbox = on_outbox
        self._on_deactivate = on_deactivate
        self._sessions: dict[str, Session] = {}

    async def activate(self, user_id: str) -> Session:
        """The session of a user; its document is read before the first call is answered."""
        session = self._sessions.get(user_id)
        if session is None:
            session = self._sessions[user_id] = Session(user_id, self)
        if (await session.document()).outbox:
            self.on_outbox(session)
        return session

    def deactivate(self, user_id: str) -> None:
        """Forgets a session; what it had in memory only (lease, queue) is gone."""
        if (session := self._sessions.pop(user_id, None)) is not None:
            self._on_deactivate(session)


def _shown(exchange: Exchange) -> Answer:
    return {"user_text": exchange.user_text, "reply_text": exchange.reply_text, **_turn(exchange)}


def _turn(exchange: Exchange) -> Answer:
    return {
        "turn_id": exchange.turn_id,
        "turn_no": exchange.turn_no,
        "sequence": exchange.sequence,
        "session_id": exchange.session_id,
        "occurred_at": exchange.occurred_at,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
