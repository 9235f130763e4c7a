"""A user's session while it is active in this process: what is committed. Who may go next is :mod:`chat_service.line`.

State and its invariants; no I/O but its stores. Everything here may be called by the actor (through Dapr) and, without
that detour, by the turns of this very process: the lock, ``turn_no`` and the ETag make both safe.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

from daca_common.backoff import Backoff
from daca_common.dapr import DaprError, DaprUnavailable

from chat_service import protocol
from chat_service.document import Document, Exchange, Receipt
from chat_service.line import Lease, Line
from chat_service.memory import Remembered
from chat_service.protocol import (
    NOTHING,
    AddMessage,
    BeginTurn,
    CompleteTurn,
    NoArguments,
    SetSummary,
    TurnId,
    TurnRef,
    fingerprint,
)
from chat_service.store import ActiveElsewhere

_log = logging.getLogger(__name__)

WRITE_ATTEMPTS: Final = 4
"""Of one write. A first refusal may be another's doing; a second of the same document tells that the count differs."""

RECEIPT_BATCH: Final = 4
"""Receipts are stored apart so many at a time."""

SUMMARY_BATCH: Final = 5
"""Exchanges that have left the window and are summarised at a time."""

Outcome = TypeVar("Outcome")
Kind = TypeVar("Kind", bound=protocol.Host)


class Documents(Protocol):
    """Where documents are kept; see :class:`chat_service.store.DocumentStore`."""

    async def load(self, user_id: str) -> Document: ...

    async def save(self, user_id: str, document: Document) -> None: ...

    async def save_where_the_count_differs(
        self, user_id: str, stored: Document, changed: Document
    ) -> Document | None: ...


class Receipts(Protocol):
    """Where receipts are kept; see :class:`chat_service.store.ReceiptStore`."""

    async def put(self, user_id: str, page: int, turns: "tuple[Exchange | Receipt, ...]") -> None: ...

    async def get(self, user_id: str, turn_id: str) -> Receipt | None: ...

    async def erase(self, user_id: str, pages: int) -> int: ...


class Journal(Protocol):
    """Where it is written down who may be owed an event; see :class:`chat_service.journal.Journal`."""

    def note(self, user_id: str) -> None: ...

    async def cover(self, user_id: str) -> None: ...

    def release(self, user_id: str) -> None: ...


class Publisher(Protocol):
    """Who publishes what sessions have committed; see :class:`chat_service.events.EventPublisher`."""

    def start(self, session: "Session") -> None: ...


class Session:
    """One activation: the document as last read or written, and the line. Lives in memory only.

    Neither Dapr nor the SDK keeps a method alone on an activation (a waiter that hangs up frees Dapr's queue, and the
    SDK has no lock), hence ``_lock``.
    """

    def __init__(self, user_id: str, host: "SessionHost") -> None:
        self.user_id = user_id
        self.activation_id = uuid4().hex
        self.active = True
        """Whether this process still is where the session lives."""
        self.remembered = Remembered()
        self.arm_summary: Callable[[], None] = _nothing
        """Sets the actor's timer, on which the running summary is made."""
        self._host = host
        self._lock = asyncio.Lock()
        self._document: Document | None = None
        self._line = Line(host.lease_seconds, host.queue_limit, time.monotonic())
        self._waiters: dict[str, set[asyncio.Event]] = {}
        """By turn id: more than one request may wait under a key."""
        self._sent: frozenset[str] = frozenset()
        """Turns whose event the broker has taken, but whose exchange does not say so yet."""
        self._receipted: frozenset[str] = frozenset()
        """Turns whose receipt is stored apart, but whose exchange does not say so yet."""
        self._storing_receipts: asyncio.Task[None] | None = None
        self._committing = False

    async def document(self) -> Document:
        """The document as this activation knows it."""
        async with self._lock:
            return await self._load()

    # What a turn asks.

    async def begin(self, arguments: BeginTurn, *, stays: bool = False) -> protocol.BeginAnswer:
        """Grants the turn, or says why not. Writes nothing. ``stays``: the caller waits by :meth:`moved_up`."""
        async with self._lock:
            document = await self._load()
            if arguments.turn_id in document.cancelled:
                return self._answer(protocol.Cancelled)
            if (known := await self._find(document, arguments.turn_id, keyed=arguments.keyed)) is not None:
                self._finish(arguments.turn_id)
                return self._replayed(known, arguments.fingerprint, arguments.session_id)
            if document.full:
                return self._answer(protocol.Full)
            if time.time() > arguments.gives_up_at:
                return self._answer(protocol.GaveUp)
            return self._next(document, arguments, stays=stays)

    async def moved_up(self, turn_id: str) -> None:
        """Returns when a turn that waits in the line may be first, or this is no longer where its line is."""
        woken = asyncio.Event()
        waiters = self._waiters.setdefault(turn_id, set())
        waiters.add(woken)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, self._line.changes_in(time.monotonic()))):
                    await woken.wait()
        finally:
            waiters.remove(woken)
            if not waiters:
                del self._waiters[turn_id]

    async def renew(self, arguments: TurnRef) -> protocol.Renewed | protocol.Lost:
        """Makes the lease last longer. Writes nothing."""
        if self._line.renew(arguments.turn_id, arguments.lease_token, time.monotonic()):
            return self._answer(protocol.Renewed, lease_seconds=self._host.lease_seconds)
        return self._answer(protocol.Lost)

    async def abandon(self, arguments: TurnRef) -> protocol.Abandoned | protocol.Lost:
        """Gives up the turn's lease, or its place in the line. Writes nothing."""
        if not self._line.leave(arguments.turn_id, arguments.lease_token, arguments.claim):
            return self._answer(protocol.Lost)
        self._wake(*self._line.order()[:1])
        self._settle_debts()
        return self._answer(protocol.Abandoned)

    async def complete(self, arguments: CompleteTurn) -> protocol.CompleteAnswer:
        """Commits the turn, unless it was committed before, was cancelled, or another turn came first.

        Safety rests on ``turn_no`` and the store's ETag. An expired lease is no reason to refuse a turn that nobody
        has overtaken.
        """
        asked = arguments.fingerprint or fingerprint(arguments.user_text)

        def judge(document: Document) -> Document | protocol.CompleteAnswer:
            if (known := document.find(arguments.turn_id)) is not None:
                return self._replayed(known, asked, arguments.session_id)
            if arguments.turn_id in document.cancelled:
                return self._answer(protocol.Cancelled)
            if arguments.turn_no != document.turn_no + 1:
                return self._answer(protocol.Stale)
            if document.full:
                return self._answer(protocol.Full)
            return document.commit(
                turn_id=arguments.turn_id,
                session_id=arguments.session_id,
                user_text=arguments.user_text,
                reply_text=arguments.reply_text,
                fingerprint=asked,
                now=_now(),
                finish_reason=arguments.finish_reason,
            )

        async with self._lock:
            answer: protocol.CompleteAnswer = await self._commit(judge)
            if isinstance(answer, protocol.Stale):
                self._document = None  # what is stored decides, not what was known here before
                answer = await self._commit(judge)
            # Sent again so late that the document knows it no longer, it looks like one that was overtaken.
            if isinstance(answer, protocol.Stale):
                known = await self._find(await self._load(), arguments.turn_id, keyed=True)
                if known is not None:
                    answer = self._replayed(known, asked, arguments.session_id)
        self._finish(arguments.turn_id)
        return answer

    # The tutorial's methods, and what else an actor is asked.

    async def add_message(self, arguments: AddMessage) -> protocol.AddAnswer:
        """Commits an exchange without a lease. A turn that is open meanwhile finds itself stale."""
        turn_id = arguments.turn_id or uuid4().hex
        session_id = arguments.session_id or uuid4().hex
        asked = fingerprint(arguments.user_text)

        def judge(document: Document) -> Document | protocol.AddAnswer:
            if (known := document.find(turn_id)) is not None:
                return self._replayed(known, asked, arguments.session_id)
            if document.full:
                return self._answer(protocol.Full)
            return document.commit(
                turn_id=turn_id,
                session_id=session_id,
                user_text=arguments.user_text,
                reply_text=arguments.reply_text,
                fingerprint=asked,
                now=_now(),
            )

        async with self._lock:
            known = await self._find(await self._load(), turn_id, keyed=arguments.turn_id is not None)
            if isinstance(known, Receipt):
                return self._replayed(known, asked, arguments.session_id)
            return await self._commit(judge)

    async def history(self, _: NoArguments = NOTHING) -> list[protocol.Spoken]:
        """The window, oldest first."""
        async with self._lock:
            return [_spoken(exchange) for exchange in (await self._load_anew()).window]

    async def clear(self, _: NoArguments = NOTHING) -> protocol.Cleared:
        """Empties the history. What was said stays in the transcript, and an open turn finds itself stale."""
        async with self._lock:
            cleared = await self._write(Document.clear)
        return self._answer(protocol.Cleared, turn_no=cleared.turn_no)

    async def erase(self, _: NoArguments = NOTHING) -> protocol.Erased:
        """Removes everything that was said, and all receipts. Repeated after a failure it goes on."""
        async with self._lock:
            if self._storing_receipts is not None:  # what is on its way is erased too
                await asyncio.wait([self._storing_receipts])
            document = await self._load()
            removed = {
                "exchanges": len(document.exchanges),
                "receipts": await self._host.receipts.erase(self.user_id, document.receipt_pages),
                "running_summary": int(bool(document.running_summary)),
            }
            if document != Document():
                lease = self._line.lease
                await self._write(lambda stored: stored.erase(lease.turn_id if lease else None))
            self._sent = self._receipted = frozenset()
            return self._answer(protocol.Erased, sequence=document.sequence, removed=removed)

    async def outcome(self, arguments: TurnId) -> protocol.TurnAnswer:
        """What became of a turn, as far as this session knows."""
        async with self._lock:
            document = await self._load_anew()
            known = await self._find(document, arguments.turn_id, keyed=True)
        if known is not None:
            return self._known(known)
        if arguments.turn_id in document.cancelled:
            return self._answer(protocol.Cancelled)
        place = self._line.place(arguments.turn_id, time.monotonic())
        if place is None:
            return self._answer(protocol.NotCommitted)
        return self._answer(protocol.Open, place=place)

    async def cancel(self, arguments: TurnId) -> protocol.TurnAnswer:
        """Refuses a turn's completion from now on: ``cancelled``, unless it is committed."""

        def judge(document: Document) -> Document | protocol.Replayed | protocol.Expired | protocol.Cancelled:
            if (known := document.find(arguments.turn_id)) is not None:
                return self._known(known)
            if arguments.turn_id in document.cancelled:
                return self._answer(protocol.Cancelled)
            return document.cancel(arguments.turn_id)

        async with self._lock:
            known = await self._find(await self._load(), arguments.turn_id, keyed=True)
            outcome: Document | protocol.TurnAnswer
            outcome = self._known(known) if known is not None else await self._write(judge)
        self._finish(arguments.turn_id)
        return self._answer(protocol.Cancelled) if isinstance(outcome, Document) else outcome

    async def set_summary(self, arguments: SetSummary) -> protocol.Done:
        """The running summary as it was made of the overflow; ignored where that was cleared meanwhile."""

        def judge(document: Document) -> Document | protocol.Done:
            through = arguments.through_turn
            if not document.summarized_through < through <= document.turn_no or through <= document.cleared_through:
                return self._answer(protocol.Done)
            return document.summarize(arguments.text, through)

        async with self._lock:
            await self._write(judge)
        return self._answer(protocol.Done)

    async def summary_due(self) -> bool:
        """Whether so much has left the window that the running summary is to be made."""
        return len((await self.document()).overflow) >= SUMMARY_BATCH

    async def publish_events(self, _: NoArguments = NOTHING) -> protocol.Done:
        """Sees to it that what is unpublished gets published: once this returns, this process's journal knows of it."""
        async with self._lock:
            await self._load_anew()  # the process that held the user may have written after this one had read
        if await self.unsent():
            await self._host.journal.cover(self.user_id)
            self._host.publisher.start(self)
        return self._answer(protocol.Done)

    async def memory_changed(self, _: NoArguments = NOTHING) -> protocol.Done:
        """What is known of the user has changed: the next turn asks for it anew."""
        self.remembered.forget()
        return self._answer(protocol.Done)

    async def locate(self, _: NoArguments = NOTHING) -> protocol.Done:
        """Where the session lives."""
        return self._answer(protocol.Done)

    def invalid(self, errors: list[dict[str, str]]) -> protocol.Invalid:
        """The answer to arguments that are wrong: ``[{field, detail}]``."""
        return self._answer(protocol.Invalid, errors=errors)

    # What the publisher and the host ask.

    async def unsent(self) -> list[Exchange]:
        """Exchanges whose event the broker has not taken yet, oldest first."""
        return [item for item in (await self.document()).outbox if item.turn_id not in self._sent]

    def sent(self, turn_id: str) -> None:
        """The broker has taken a turn's event. That is written down with the next write; none is made for it."""
        self._sent |= {turn_id}

    def all_sent(self) -> None:
        """Nothing is unpublished."""
        self._settle_debts()

    def is_idle(self) -> bool:
        """Whether nothing is under way: to end it now costs its user nothing but another read."""
        return not self._lock.locked() and self._storing_receipts is None and self._line.is_empty(time.monotonic())

    def deactivate(self) -> None:
        """The session lives here no longer: whoever waits for it is woken, and has to ask where it is now.

        What is still to be published is seen to by the publisher, which is at it already.
        """
        self.active = False
        self.arm_summary = _nothing  # the actor's: each would keep the other in memory
        self._settle_debts()
        self._wake(*self._waiters)

    def _next(self, document: Document, arguments: BeginTurn, *, stays: bool) -> protocol.BeginAnswer:
        now = time.monotonic()
        place = self._line.ask(
            arguments.turn_id,
            arguments.claim,
            arrived_at=arguments.arrived_at or time.time(),
            waits=arguments.waits,
            requeued=arguments.requeued,
            stays=stays,
            now=now,
        )
        if place == "crowded":
            return self._answer(protocol.Crowded)
        if not isinstance(place, Lease):
            return self._answer(protocol.Busy, place=place, retry_after_seconds=min(0.25, 0.01 * place))
        self._host.journal.note(self.user_id)  # stored while the model runs
        return self._answer(
            protocol.Granted,
            turn_no=document.turn_no + 1,
            sequence=document.sequence + 1,
            window=tuple(_spoken(exchange) for exchange in document.window),
            running_summary=document.running_summary,
            lease_token=place.token,
            lease_seconds=self._host.lease_seconds,
        )

    def _finish(self, turn_id: str) -> None:
        self._line.finish(turn_id)
        self._wake(turn_id, *self._line.order()[:1])
        self._settle_debts()

    def _wake(self, *turn_ids: str) -> None:
        for turn_id in turn_ids:
            for woken in self._waiters.get(turn_id, ()):
                woken.set()

    def _settle_debts(self) -> None:
        """The user is owed nothing any more where no turn is open or being committed, and no event unpublished."""
        document = self._document
        unsent = document is None or any(item.turn_id not in self._sent for item in document.outbox)
        if not unsent and not self._committing and (self._line.lease is None or not self.active):
            self._host.journal.release(self.user_id)

    async def _load(self) -> Document:
        if self._document is None:
            with self._elsewhere_is_known():
                self._document = await self._host.documents.load(self.user_id)
        return self._document

    async def _load_anew(self) -> Document:
        """The document as it is stored, for what is answered without a write.

        A write is fenced, a read is not: when placement's leader goes, an actor may move without its old host being
        told, and there the session and its document stay in memory.
        """
        self._document = None
        return await self._load()

    async def _find(self, document: Document, turn_id: str, *, keyed: bool) -> Exchange | Receipt | None:
        """What is known of a committed turn, here or apart."""
        if (known := document.find(turn_id)) is not None or not keyed or not document.receipt_pages:
            return known
        return await self._host.receipts.get(self.user_id, turn_id)

    async def _commit(self, judge: "Callable[[Document], Document | Outcome]") -> "Outcome | protocol.Committed":
        self._committing = True
        try:
            await self._host.journal.cover(self.user_id)
            outcome = await self._write(judge)
        finally:
            self._committing = False
        # Also where the answer is "replayed": it may be our own write, which landed although its answer got lost.
        document = self._document
        if document is not None:
            if document.outbox:
                self._host.publisher.start(self)
            self._see_to_departing(document)
        if not isinstance(outcome, Document):
            return outcome
        return self._answer(protocol.Committed, **_committed(outcome.exchanges[-1]))

    async def _write(self, judge: "Callable[[Document], Document | Outcome]") -> "Document | Outcome":
        """Writes what ``judge`` makes of the document, or returns its answer where it makes none.

        After a refused or unknown write the document is read again and judged again. A turn is looked for by its id
        before anything else, so a write that did land is recognised as ours. Where the same document is refused twice,
        the store counts otherwise than the document.

        Raises:
            ActiveElsewhere: the session has moved; nothing was written.
            DaprError, DaprUnavailable: unknown even after several attempts.
        """
        backoff = Backoff(0.02, 0.2)
        refused: list[Document] = []
        while True:
            document = await self._load()
            outcome = judge(document)
            if not isinstance(outcome, Document):
                return outcome
            sent, receipted = self._sent, self._receipted  # what was done since the last write is written on the way
            settled = outcome.settle(published=sent, receipted=receipted)
            changed: Document | None
            documents = self._host.documents
            try:
                with self._elsewhere_is_known():
                    if refused.count(document) < 2:
                        changed = replace(settled, rev=document.rev + 1)
                        await documents.save(self.user_id, changed)
                    else:
                        changed = await documents.save_where_the_count_differs(self.user_id, document, settled)
            except (DaprError, DaprUnavailable) as error:
                self._document = None
                if isinstance(error, DaprError) and error.mismatch:
                    refused.append(document)
                if backoff.failures + 1 == WRITE_ATTEMPTS:
                    raise
                _log.info("write refused or unknown, reading again", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())
                continue
            self._document = changed
            if changed is not None:
                self._sent -= sent
                self._receipted -= receipted
                return changed

    @contextlib.contextmanager
    def _elsewhere_is_known(self) -> Iterator[None]:
        """A session that has moved is forgotten here at once: its end may not have been told yet, or never will be."""
        try:
            yield
        except ActiveElsewhere:
            self._document = None
            self._host.forget(self)
            raise

    def _see_to_departing(self, document: Document) -> None:
        """Off the path of the answer: receipts of what left the window are stored apart, and it is summarised."""
        if len(document.overflow) >= SUMMARY_BATCH:
            self.arm_summary()
        due = tuple(item for item in document.unreceipted if item.turn_id not in self._receipted)
        # One page at a time: the next has no number before this one is counted.
        if len(due) >= RECEIPT_BATCH and self._storing_receipts is None and not self._receipted:
            self._storing_receipts = asyncio.create_task(self._store_receipts(document.receipt_pages + 1, due))

    async def _store_receipts(self, page: int, due: "tuple[Exchange | Receipt, ...]") -> None:
        try:
            await self._host.receipts.put(self.user_id, page, due)
        except (DaprError, DaprUnavailable) as error:
            _log.info("receipts not stored; the next turn tries again", extra={"error": str(error)})
        else:
            self._receipted |= {item.turn_id for item in due}
        finally:
            self._storing_receipts = None

    def _replayed(
        self, known: Exchange | Receipt, asked: str, session_id: str | None
    ) -> protocol.Replayed | protocol.Expired | protocol.Mismatch:
        other_text = asked and known.fingerprint and known.fingerprint != asked
        if other_text or (session_id is not None and session_id != known.session_id):
            return self._answer(protocol.Mismatch)
        return self._known(known)

    def _known(self, known: Exchange | Receipt) -> protocol.Replayed | protocol.Expired:
        if known.reply_text is None:
            return self._answer(protocol.Expired, session_id=known.session_id)
        return self._answer(protocol.Replayed, **_committed(known))

    def _answer(self, kind: type[Kind], **fields: Any) -> Kind:
        host = self._host
        return kind(host=host.name, address=host.address, activation_id=self.activation_id, **fields)


class SessionHost:
    """The sessions that are active in this process, by user id.

    They are kept here and not in the SDK's actor objects, because the SDK makes two of them when two first calls of an
    actor meet.
    """

    def __init__(
        self,
        *,
        name: str,
        address: str,
        documents: Documents,
        receipts: Receipts,
        journal: Journal,
        publisher: Publisher,
        lease_seconds: float,
        queue_limit: int,
    ) -> None:
        """``name`` is the pod's, ``address`` where others reach it."""
        self.name = name
        self.address = address
        self.documents = documents
        self.receipts = receipts
        self.journal = journal
        self.publisher = publisher
        self.lease_seconds = lease_seconds
        self.queue_limit = queue_limit
        self._sessions: dict[str, Session] = {}

    def find(self, user_id: str) -> Session | None:
        """The session of a user, if it is active here."""
        return self._sessions.get(user_id)

    async def activate(self, user_id: str) -> Session:
        """The session of a user; its document is read before the first call is answered."""
        session = self._sessions.get(user_id)
        if session is None:
            session = self._sessions[user_id] = Session(user_id, self)
        if await session.unsent():
            self.journal.note(user_id)
            self.publisher.start(session)
        return session

    def deactivate(self, user_id: str) -> None:
        """Ends a session; what it had in memory only (lease, line) is gone."""
        if (session := self._sessions.get(user_id)) is not None:
            self.forget(session)

    @property
    def active(self) -> int:
        """How many sessions are active here."""
        return len(self._sessions)

    def end_idle(self) -> int:
        """Ends the sessions in which nothing is under way; how many. The next call of each makes it anew."""
        idle = [session for session in self._sessions.values() if session.is_idle()]
        for session in idle:
            self.forget(session)
        return len(idle)

    def forget(self, session: Session) -> None:
        """Ends this session, unless another has taken its place."""
        if self._sessions.get(session.user_id) is session:
            del self._sessions[session.user_id]
        if session.active:
            session.deactivate()


def _nothing() -> None:
    pass


def _spoken(exchange: Exchange) -> protocol.Spoken:
    return protocol.Spoken(
        user_text=exchange.user_text,
        reply_text=exchange.reply_text,
        turn_id=exchange.turn_id,
        turn_no=exchange.turn_no,
        sequence=exchange.sequence,
        session_id=exchange.session_id,
        occurred_at=exchange.occurred_at,
    )


def _committed(known: Exchange | Receipt) -> dict[str, Any]:
    return {
        "turn_id": known.turn_id,
        "turn_no": known.turn_no,
        "sequence": known.sequence,
        "session_id": known.session_id,
        "occurred_at": known.occurred_at,
        "reply_text": known.reply_text,
        "finish_reason": known.finish_reason,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
