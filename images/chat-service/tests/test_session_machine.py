"""One user's session as a state machine: two pods, a fence between them, and whatever may go wrong between two steps.

What is promised is in the invariants; the rules are what clients, Dapr, Redis and bad luck do. The pods are the real
:class:`Session` and :class:`SessionHost`; what they are kept in is in memory (``support.store``; the real one is under
test in ``test_store.py`` and on the cluster). Time is the machine's own, so a second costs nothing.

The faults at the end are planted: each breaks one promise, and the machine has to notice.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from chat_service import protocol, session
from chat_service.document import WINDOW, Document
from chat_service.line import Line
from chat_service.protocol import AddMessage, BeginTurn, CompleteTurn, SetSummary, TurnId, TurnRef, fingerprint
from chat_service.session import Session, SessionHost
from daca_common.dapr import DaprError, DaprUnavailable
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.store import MemoryJournal, MemoryReceipts, MemoryStore, Outboxes

pytestmark = pytest.mark.timeout(120)  # many histories are tried

USER = "alice"
LEASE_SECONDS = 5.0
PODS = ("pod-a", "pod-b")


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes at once when there is nothing to do but wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.set_exception_handler(lambda *_: None)  # background tasks of a pod that crashed

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Crash(BaseException):
    """The process is gone."""


class Steps:
    """Counts what a process asks of its stores; it may crash before or after any of it."""

    def __init__(self) -> None:
        self.left: int | None = None

    def __call__(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise Crash

    async def around(self, work: Awaitable[Any]) -> Any:
        try:
            self()
        except Crash:
            work.close()  # type: ignore[attr-defined]
            raise
        done = await work
        self()
        return done


class Store(MemoryStore):
    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    async def load(self, user_id: str) -> Document:
        return await self.steps.around(super().load(user_id))

    async def _save(self, user_id: str, document: Document, count: int) -> None:
        await self.steps.around(super()._save(user_id, document, count))


class Receipts(MemoryReceipts):
    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    async def put(self, user_id: str, page: int, turns: Any) -> None:
        await self.steps.around(super().put(user_id, page, turns))


class Journal(MemoryJournal):
    """``users`` is what is stored, and outlives its process."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps

    async def cover(self, user_id: str) -> None:
        await self.steps.around(super().cover(user_id))


class Pod:
    """A process that hosts sessions."""

    def __init__(self, name: str, store: Store, receipts: Receipts) -> None:
        self.journal = Journal(store.steps)
        self.outboxes = Outboxes()
        self.host = SessionHost(
            name=name,
            address=f"{name}:8010",
            documents=store,
            receipts=receipts,
            journal=self.journal,
            publisher=self.outboxes,
            lease_seconds=LEASE_SECONDS,
            queue_limit=64,
        )


@dataclass
class Running:
    """A turn whose model runs."""

    session: Session
    grant: protocol.Granted
    turn_id: str
    text: str
    granted_at: float

    def completion(self) -> CompleteTurn:
        return CompleteTurn(
            turn_id=self.turn_id,
            lease_token=self.grant.lease_token,
            turn_no=self.grant.turn_no,
            session_id="s",
            user_text=self.text,
            reply_text=f"reply to {self.text} of {self.turn_id}",
        )


class SessionMachine(RuleBasedStateMachine):
    """What a user's clients, Dapr, Redis and bad luck do."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clock()
        self.patch = pytest.MonkeyPatch()
        now = SimpleNamespace(monotonic=lambda: self.loop.now, time=lambda: self.loop.now)
        self.patch.setattr(session, "time", now)
        self.steps = Steps()
        self.store, self.receipts = Store(self.steps), Receipts(self.steps)
        self.pods = {name: Pod(name, self.store, self.receipts) for name in PODS}
        self.home = PODS[0]
        self.orphans: list[Journal] = []
        """Journals of processes that are gone."""
        self.running: list[Running] = []
        self.sent: list[CompleteTurn] = []
        """Completions that were sent; any of them may arrive again."""
        self.turns = 0
        self.known: dict[str, tuple[int, str]] = {}
        """Turns of which a client was told that they are committed: their sequence and reply."""
        self.cancelled: set[str] = set()
        self.published: list[int] = []
        self.stored: list[Document] = []
        """What the store had, one after the other; since data was lost for the last time."""
        self.lost = False
        """Data was lost or restored, and no turn was committed since: until then nothing is promised."""

    def teardown(self) -> None:
        """Once nothing goes wrong any more, every committed turn is published although its user never returns; and
        who does is not locked out."""
        try:
            self.store.faults.clear()
            self.steps.left = None
            self._adopt()
            for _ in range(len(PODS)):
                self._publish_all()
            owed = {sequence for sequence, _ in self.known.values()} - set(self.published)
            assert not owed, f"committed and never published: {owed}"
            self._run(self._nobody_is_locked_out())
        finally:
            self.patch.undo()
            self.loop.run_until_complete(_cancel_all())
            self.loop.close()

    # What clients do.

    @rule(again=st.one_of(st.none(), st.integers(0, 7)), other_text=st.booleans(), pod=st.sampled_from(PODS))
    def a_message_comes(self, again: int | None, other_text: bool, pod: str) -> None:
        turn_id, text = self._message(again, other_text=other_text)
        at = self._session(pod)
        if at is None:
            return
        asked = BeginTurn(turn_id=turn_id, fingerprint=fingerprint(text), claim=f"{turn_id}-{self.loop.now}")
        answer = self._call(pod, at.begin(asked))
        if isinstance(answer, protocol.Granted):
            self._nobody_else_has_the_lease(at)
            self.running.append(Running(at, answer, turn_id, text, self.loop.now))
        elif isinstance(answer, protocol.Replayed):
            assert answer.reply_text in {f"reply to {text} of {turn_id}", "Noted."}, "it got another message's reply"
            self._told(answer)
        elif isinstance(answer, protocol.Cancelled):
            assert turn_id not in self.known or self.lost

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 7))
    def a_model_has_answered(self, which: int) -> None:
        turn = self.running.pop(which % len(self.running))
        self.sent.append(turn.completion())
        answer = self._call(turn.session._host.name, turn.session.complete(turn.completion()))
        if isinstance(answer, protocol.Committed):
            window = [spoken.turn_id for spoken in turn.grant.window][-(WINDOW - 1) :]
            stored = [exchange.turn_id for exchange in self.store.of(USER).window]
            assert stored == [*window, turn.turn_id], "it was not answered from what came before it"
        self._completed(answer, turn.turn_id)

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 30), pod=st.sampled_from(PODS))
    def a_completion_arrives_again(self, which: int, pod: str) -> None:
        if (at := self._session(pod)) is not None:
            sent = self.sent[which % len(self.sent)]
            self._completed(self._call(pod, at.complete(sent)), sent.turn_id)

    @rule(count=st.integers(1, 8))
    def turns_are_taken_without_trouble(self, count: int) -> None:
        for _ in range(count):
            running = len(self.running)
            self.a_message_comes(None, other_text=False, pod=self.home)
            if len(self.running) > running:
                self.a_model_has_answered(len(self.running) - 1)
            self.the_broker_takes_an_event(pod=self.home, answered=True)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 7))
    def a_client_gives_up(self, which: int) -> None:
        turn = self.running.pop(which % len(self.running))
        ref = TurnRef(turn_id=turn.turn_id, lease_token=turn.grant.lease_token)
        self._call(turn.session._host.name, turn.session.abandon(ref))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 7), answers_all_the_same=st.booleans())
    def a_turn_is_cancelled(self, which: int, answers_all_the_same: bool) -> None:
        turn = self.running[which % len(self.running)]
        if (at := self._session(self.home)) is None:
            return
        answer = self._call(self.home, at.cancel(TurnId(turn_id=turn.turn_id)))
        if isinstance(answer, protocol.Cancelled):
            assert turn.turn_id not in self.known or self.lost, "a committed turn is called cancelled"
            self.cancelled.add(turn.turn_id)
            if answers_all_the_same:
                self.a_model_has_answered(which)
        elif isinstance(answer, protocol.Replayed):
            self._told(answer)

    @rule(pod=st.sampled_from(PODS))
    def a_message_is_added(self, pod: str) -> None:
        turn_id, text = self._message(None)
        if (at := self._session(pod)) is not None:
            added = AddMessage(turn_id=turn_id, user_text=text, reply_text="Noted.", session_id="s")
            self._completed(self._call(pod, at.add_message(added)), turn_id)

    @rule()
    def the_history_is_cleared(self) -> None:
        if (at := self._session(self.home)) is not None:
            self._call(self.home, at.clear())

    @rule(through=st.integers(0, 5))
    def a_summary_is_made(self, through: int) -> None:
        if (at := self._session(self.home)) is not None:
            overflow = self.store.of(USER).overflow
            if overflow:
                turn_no = overflow[min(through, len(overflow) - 1)].turn_no
                self._call(self.home, at.set_summary(SetSummary(text="they spoke", through_turn=turn_no)))

    # What Dapr, Redis and bad luck do.

    @rule(seconds=st.sampled_from([0.05, 1.0, LEASE_SECONDS + 0.1]))
    def time_passes(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(told=st.booleans())
    def the_actor_moves(self, told: bool) -> None:
        """Where the old host is not told, it goes on as if the actor were its own.

        Not promised: that this goes well together with a loss of data. The count of writes begins anew then, and may
        come to be the one that a host knows which has neither written since nor been told.
        """
        if told or self.lost:
            self.pods[self.home].host.deactivate(USER)
        self.home = PODS[1 - PODS.index(self.home)]

    @rule(pod=st.sampled_from(PODS))
    def a_pod_crashes(self, pod: str) -> None:
        self._crash(pod)

    @rule(steps=st.integers(1, 6))
    def a_pod_will_crash_soon(self, steps: int) -> None:
        self.steps.left = steps

    @rule(faults=st.lists(st.sampled_from(["", "lost before", "lost after"]), max_size=5))
    def the_next_writes_get_lost(self, faults: list[str]) -> None:
        self.store.faults = faults

    @rule(pod=st.sampled_from(PODS), answered=st.booleans())
    def the_broker_takes_an_event(self, pod: str, answered: bool) -> None:
        outboxes = self.pods[pod].outboxes
        for at in list(outboxes.sessions):
            unsent = self._call(pod, at.unsent())
            if unsent is None:
                continue
            if not at.active:
                outboxes.sessions.remove(at)
                self.orphans.append(_journal_of(USER))
                continue
            if unsent:
                self.published.append(unsent[0].sequence)
                if answered:
                    at.sent(unsent[0].turn_id)
            else:
                outboxes.sessions.remove(at)
                at.all_sent()

    @rule()
    def journals_of_the_dead_are_adopted(self) -> None:
        self._adopt()

    @rule()
    def redis_loses_everything(self) -> None:
        self.store.entries.clear()
        self.receipts.receipts.clear()
        self.receipts.pages.clear()
        self._data_was_lost()

    @precondition(lambda self: len(self.stored) > 1)
    @rule(back=st.integers(1, 10), count=st.integers(1, 40))
    def an_older_value_is_restored(self, back: int, count: int) -> None:
        older = self.stored[-min(1 + back, len(self.stored))]
        self.store.entries[USER] = replace(self.store.entries[USER], document=older, count=count)
        self._data_was_lost()

    @precondition(lambda self: USER in self.store.entries)
    @rule()
    def somebody_writes_without_an_etag(self) -> None:
        entry = self.store.entries[USER]
        written = replace(entry.document, running_summary=f"by hand at {self.loop.now}")
        self.store.entries[USER] = replace(entry, document=written, count=entry.count + 1)

    # What is promised.

    @invariant()
    def no_number_is_given_twice(self) -> None:
        numbers = [sequence for sequence, _ in self.known.values()]
        assert len(numbers) == len(set(numbers)), "two turns have one number"

    @invariant()
    def the_count_of_turns_never_goes_back(self) -> None:
        document = self.store.of(USER)
        if not self.stored or document != self.stored[-1]:
            before = self.stored[-1].sequence if self.stored else 0
            assert document.sequence >= before, "the count of turns went back"
            self.stored.append(document)

    @invariant()
    def a_document_does_not_grow(self) -> None:
        document = self.store.of(USER)
        assert len(document.exchanges) <= len(document.outbox) + len(document.unreceipted) + 20 + WINDOW

    # How the rules do it.

    def _message(self, again: int | None, *, other_text: bool = False) -> tuple[str, str]:
        if again is not None and self.turns:
            turn_id = f"t{max(1, self.turns - again)}"
        else:
            self.turns += 1
            turn_id = f"t{self.turns}"
        return turn_id, f"{'another' if other_text else 'a'} message as {turn_id}"

    def _session(self, pod: str) -> Session | None:
        """The session as it is active in a pod; only where the actor lives it is made active."""
        host = self.pods[pod].host
        if pod != self.home or (found := host.find(USER)) is not None:
            return host.find(USER)
        return self._call(pod, host.activate(USER)) or found

    def _call(self, pod: str, work: Coroutine[Any, Any, Any]) -> Any:
        """What a call answers; ``None`` where it failed or the pod crashed meanwhile."""
        try:
            return self._run(work)
        except (DaprError, DaprUnavailable):
            return None
        except Crash:
            self._crash(pod)
            return None

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run_until_complete(work)
        finally:
            self.loop.run_until_complete(asyncio.sleep(0.001))  # whatever goes on off the path of the answer

    def _crash(self, pod: str) -> None:
        gone = self.pods[pod]
        self.steps.left = None
        if (at := gone.host.find(USER)) is not None and at._storing_receipts is not None:
            at._storing_receipts.cancel()
        self.orphans.append(gone.journal)
        self.running = [turn for turn in self.running if turn.session._host is not gone.host]
        self.pods[pod] = Pod(pod, self.store, self.receipts)

    def _adopt(self) -> None:
        orphans, self.orphans = self.orphans, []
        for journal in orphans:
            if USER not in journal.users:
                continue
            at = self._session(self.home)
            if at is None or self._call(self.home, at.publish_events()) is None:
                self.orphans.append(journal)

    def _publish_all(self) -> None:
        for pod in PODS:
            for _ in range(200):
                if not self.pods[pod].outboxes.sessions:
                    break
                self.the_broker_takes_an_event(pod, answered=True)
            self._adopt()

    def _data_was_lost(self) -> None:
        self.pods[PODS[1 - PODS.index(self.home)]].host.deactivate(USER)
        self.lost = True
        self.stored.clear()
        self.known.clear()
        self.cancelled.clear()
        self.sent.clear()
        self.running.clear()

    def _completed(self, answer: Any, turn_id: str) -> None:
        if isinstance(answer, protocol.Committed):
            if self.lost:
                self.lost = False
                self.running.clear()
                self.sent.clear()
                self.known.clear()
                self.stored.clear()
            assert turn_id not in self.known, "a turn is committed twice"
            assert turn_id not in self.cancelled, "a cancelled turn is committed"
            self._told(answer)
        elif isinstance(answer, protocol.Replayed):
            self._told(answer)
        elif isinstance(answer, (protocol.Stale, protocol.Cancelled, protocol.Full)):
            assert turn_id not in self.known or self.lost, f"a committed turn is called {answer.status}"

    def _told(self, answer: protocol.Committed | protocol.Replayed) -> None:
        if not self.lost:
            told = (answer.sequence, answer.reply_text)
            assert self.known.setdefault(answer.turn_id, told) == told, "a turn's number or reply has changed"
            assert answer.turn_id not in self.cancelled, "a cancelled turn is committed"

    def _nobody_else_has_the_lease(self, at: Session) -> None:
        over = self.cancelled | self.known.keys()
        holders = [turn for turn in self.running if turn.session is at and turn.turn_id not in over]
        assert all(turn.granted_at + LEASE_SECONDS <= self.loop.now for turn in holders), "two turns have the lease"

    async def _nobody_is_locked_out(self) -> None:
        at = await self.pods[self.home].host.activate(USER)
        for _ in range(20):
            with contextlib.suppress(DaprError):
                grant = await at.begin(BeginTurn(turn_id="last"))
                if isinstance(grant, protocol.Granted):
                    answer = await at.complete(Running(at, grant, "last", "hello", 0).completion())
                    if isinstance(answer, protocol.Committed):
                        self._completed(answer, "last")
                        return
            await asyncio.sleep(1)
        raise AssertionError("the user is locked out")


def _journal_of(user_id: str) -> Journal:
    """Stands for a user who was handed over."""
    journal = Journal(Steps())
    journal.users.add(user_id)
    return journal


async def _cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        with contextlib.suppress(BaseException):
            await task


NORMAL = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HUNT = settings(NORMAL, max_examples=2000, phases=[Phase.generate])

TestSession = SessionMachine.TestCase
TestSession.settings = NORMAL


def _unfenced(patch: pytest.MonkeyPatch) -> None:
    """A completion is taken for whatever turn comes next."""
    complete = Session.complete

    async def taken(self: Session, arguments: CompleteTurn) -> Any:
        document = await self.document()
        return await complete(self, arguments.model_copy(update={"turn_no": document.turn_no + 1}))

    patch.setattr(Session, "complete", taken)


def _any_etag(patch: pytest.MonkeyPatch) -> None:
    """The store takes every write."""
    save = MemoryStore._save

    async def saved(self: MemoryStore, user_id: str, document: Document, _: int) -> None:
        entry = self.entries.get(user_id)
        await save(self, user_id, document, entry.count if entry else 0)

    patch.setattr(MemoryStore, "_save", saved)


def _no_receipts(patch: pytest.MonkeyPatch) -> None:
    """A turn that left the document is forgotten."""

    async def put(*_: object) -> None:
        pass

    patch.setattr(MemoryReceipts, "put", put)


def _unknown_ids(patch: pytest.MonkeyPatch) -> None:
    """A turn's id is not looked for."""
    patch.setattr(Document, "find", lambda *_: None)


def _no_journal(patch: pytest.MonkeyPatch) -> None:
    """Nobody writes down who is owed an event."""

    async def cover(*_: object) -> None:
        pass

    patch.setattr(MemoryJournal, "cover", cover)


def _no_footing(patch: pytest.MonkeyPatch) -> None:
    """A count of writes that differs is for good."""

    async def save(*_: object) -> None:
        raise DaprError(500, "ERR_ACTOR_STATE_TRANSACTION_SAVE", "failed to set key")

    patch.setattr(MemoryStore, "save_where_the_count_differs", save)


def _no_outbox(patch: pytest.MonkeyPatch) -> None:
    """What leaves the window counts as published."""
    settle = Document.settle

    def settled(self: Document, *, published: frozenset[str], receipted: frozenset[str]) -> Document:
        departing = frozenset(item.turn_id for item in self.exchanges[:-1])
        return settle(self, published=published | departing, receipted=receipted)

    patch.setattr(Document, "settle", settled)


def _forgotten_cancels(patch: pytest.MonkeyPatch) -> None:
    """A cancelled turn is not written down."""
    patch.setattr(Document, "cancel", lambda self, _: self.summarize(self.running_summary, 0))


def _clear_counts_anew(patch: pytest.MonkeyPatch) -> None:
    """A cleared history counts from 1 again."""
    clear = Document.clear
    patch.setattr(Document, "clear", lambda self: replace(clear(self), sequence=0))


def _everybody_first(patch: pytest.MonkeyPatch) -> None:
    """The lease is given to whoever asks."""
    ask = Line.ask

    def granted(self: Line, *args: Any, **options: Any) -> Any:
        self._lease = None
        return ask(self, *args, **options)

    patch.setattr(Line, "ask", granted)


def _another_message_fits(patch: pytest.MonkeyPatch) -> None:
    """A key fits every message."""
    patch.setattr(Session, "_replayed", lambda self, known, *_: self._known(known))


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    _unfenced,
    _any_etag,
    _no_receipts,
    _unknown_ids,
    _no_journal,
    _no_footing,
    _no_outbox,
    _forgotten_cancels,
    _clear_counts_anew,
    _everybody_first,
    _another_message_fits,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_fault_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch):
    plant(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(SessionMachine, settings=HUNT)
