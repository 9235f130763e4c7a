"""A session: who may take the next turn, and what is committed when writes are refused, lost or repeated."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from chat_service import protocol
from chat_service.document import WINDOW, Document, Exchange, Receipt
from chat_service.protocol import (
    AddMessage,
    BeginTurn,
    CompleteTurn,
    SetSummary,
    TurnId,
    TurnRef,
    fingerprint,
)
from chat_service.session import RECEIPT_BATCH, SUMMARY_BATCH, Session
from chat_service.store import ActiveElsewhere
from daca_common.dapr import DaprUnavailable
from support.store import Pods
from support.waiting import until


@pytest.fixture
def pods() -> Pods:
    return Pods()


async def begun(session: Session, turn_id: str, text: str = "hi") -> protocol.Granted:
    grant = await session.begin(BeginTurn(turn_id=turn_id, fingerprint=fingerprint(text)))
    assert isinstance(grant, protocol.Granted), grant
    return grant


def completion(grant: protocol.Granted, turn_id: str, text: str = "hi") -> CompleteTurn:
    return CompleteTurn(
        turn_id=turn_id,
        lease_token=grant.lease_token,
        turn_no=grant.turn_no,
        session_id="s",
        user_text=text,
        reply_text=f"reply to {text}",
    )


async def taken(session: Session, turn_id: str, text: str = "hi") -> protocol.CompleteAnswer:
    return await session.complete(completion(await begun(session, turn_id, text), turn_id, text))


async def many(session: Session, turns: int) -> None:
    """So many turns, each with all that is done off the path of its answer."""
    for number in range(1, turns + 1):
        await taken(session, f"t{number}", f"message {number}")
        session.sent(f"t{number}")
        await until(lambda: session._storing_receipts is None)


class TestAnswers:
    async def test_every_answer_names_the_host_its_address_and_the_activation(self, pods: Pods):
        session = await pods.session("pod-7")
        grant = await begun(session, "t1")
        ref = TurnRef(turn_id="t1", lease_token=grant.lease_token)
        answers: list[protocol.Host] = [
            grant,
            await session.begin(BeginTurn(turn_id="t2")),
            await session.renew(ref),
            await session.complete(completion(grant, "t1")),
            await session.abandon(ref),
            await session.add_message(AddMessage(user_text="a", reply_text="b")),
            await session.outcome(TurnId(turn_id="t1")),
            await session.cancel(TurnId(turn_id="t3")),
            await session.clear(),
            await session.erase(),
            await session.locate(),
            session.invalid([]),
        ]
        assert {(item.host, item.address, item.activation_id) for item in answers} == {
            ("pod-7", "pod-7:8010", session.activation_id)
        }

    async def test_a_turn_is_granted_with_the_window_and_commits_once(self, pods: Pods):
        session = await pods.session()
        first = await taken(session, "t1", "Hi there")
        assert isinstance(first, protocol.Committed)
        assert (first.turn_no, first.sequence, first.reply_text) == (1, 1, "reply to Hi there")
        grant = await begun(session, "t2")
        assert [item.user_text for item in grant.window] == ["Hi there"]
        assert (grant.turn_no, grant.sequence) == (2, 2)

    async def test_beginning_renewing_and_giving_up_write_nothing(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        ref = TurnRef(turn_id="t1", lease_token=grant.lease_token)
        assert (await session.renew(ref)).status == "renewed"
        assert (await session.abandon(ref)).status == "abandoned"
        assert (await session.renew(ref)).status == "lost"
        assert pods.store.writes == 0


class TestTheLine:
    async def test_many_turns_at_once_are_committed_in_the_order_in_which_they_arrived(self, pods: Pods):
        session = await pods.session()
        begins = 0

        async def take(turn_id: str, arrived_at: float) -> None:
            nonlocal begins
            while True:
                begins += 1
                answer = await session.begin(BeginTurn(turn_id=turn_id, arrived_at=arrived_at), stays=True)
                if isinstance(answer, protocol.Granted):
                    await session.complete(completion(answer, turn_id))
                    return
                await session.moved_up(turn_id)

        names = [f"t{number:02}" for number in range(30)]
        holder = await begun(session, "holder")
        waiting = [asyncio.create_task(take(name, number + 1.0)) for number, name in enumerate(names)]
        await asyncio.sleep(0)
        await session.abandon(TurnRef(turn_id="holder", lease_token=holder.lease_token))
        await asyncio.gather(*waiting)
        assert [item.turn_id for item in pods.store.of("alice").exchanges] == names
        assert begins <= 2 * len(names)

    async def test_more_than_may_wait_are_told_so(self):
        session = await Pods(queue_limit=1).session()
        await begun(session, "t1")
        assert (await session.begin(BeginTurn(turn_id="t2"))).status == "busy"
        assert (await session.begin(BeginTurn(turn_id="t3"))).status == "crowded"

    async def test_a_caller_that_gave_up_meanwhile_is_granted_nothing(self, pods: Pods):
        session = await pods.session()
        answer = await session.begin(BeginTurn(turn_id="t1", gives_up_at=time.time() - 1))
        assert answer.status == "gave_up"
        await begun(session, "t2")

    async def test_a_caller_that_was_not_told_its_lease_gives_it_up_by_its_claim(self, pods: Pods):
        session = await pods.session()
        await session.begin(BeginTurn(turn_id="t1", claim="mine"))
        assert (await session.abandon(TurnRef(turn_id="t1", claim="of another"))).status == "lost"
        assert (await session.abandon(TurnRef(turn_id="t1", claim="mine"))).status == "abandoned"
        await begun(session, "t2")

    async def test_who_waits_here_goes_on_when_the_lease_of_a_dead_turn_expires(self):
        session = await Pods(lease_seconds=0.02).session()
        await begun(session, "dead")
        assert (await session.begin(BeginTurn(turn_id="t2"), stays=True)).status == "busy"
        await asyncio.wait_for(session.moved_up("t2"), 1)
        await begun(session, "t2")

    @pytest.mark.parametrize("how", ["cancelled", "committed"])
    async def test_who_waits_under_an_id_is_woken_when_that_turn_is_over(self, how: str):
        session = await Pods(lease_seconds=60).session()
        grant = await begun(session, "t1")
        await session.begin(BeginTurn(turn_id="t1", claim="again"), stays=True)
        waiting = asyncio.create_task(session.moved_up("t1"))
        await asyncio.sleep(0)
        if how == "cancelled":
            await session.cancel(TurnId(turn_id="t1"))
        else:
            await session.complete(completion(grant, "t1"))
        await asyncio.wait_for(waiting, 1)

    async def test_a_session_that_ends_wakes_whoever_waits_for_it(self, pods: Pods):
        session = await pods.session()
        await begun(session, "t1")
        await session.begin(BeginTurn(turn_id="t2"), stays=True)
        waiting = asyncio.create_task(session.moved_up("t2"))
        await asyncio.sleep(0)
        pods.host().deactivate("alice")
        await asyncio.wait_for(waiting, 1)
        assert not session.active


class TestTheSameTurnAgain:
    async def test_a_retry_gets_the_same_reply(self, pods: Pods):
        session = await pods.session()
        first = await taken(session, "t1", "once")
        again = await session.begin(BeginTurn(turn_id="t1", fingerprint=fingerprint("once")))
        assert isinstance(first, protocol.Committed)
        assert isinstance(again, protocol.Replayed)
        assert (again.reply_text, again.sequence, again.occurred_at) == (
            first.reply_text,
            first.sequence,
            first.occurred_at,
        )

    @pytest.mark.parametrize("turns", [WINDOW + RECEIPT_BATCH + 2, 60])
    async def test_also_when_it_has_left_the_document(self, pods: Pods, turns: int):
        session = await pods.session()
        await many(session, turns)
        await session.set_summary(SetSummary(text="", through_turn=turns - WINDOW))
        assert pods.store.of("alice").find("t1") is None
        again = await session.begin(BeginTurn(turn_id="t1", fingerprint=fingerprint("message 1")))
        assert isinstance(again, protocol.Replayed)
        assert (again.reply_text, again.sequence) == ("reply to message 1", 1)
        assert isinstance(await session.outcome(TurnId(turn_id="t1")), protocol.Replayed)

    async def test_also_after_the_history_was_cleared_and_at_another_activation(self, pods: Pods):
        session = await pods.session()
        await many(session, 3)
        await session.clear()
        other = await pods.session("pod-b")
        assert (await other.begin(BeginTurn(turn_id="t2"))).status == "replayed"

    async def test_also_when_it_has_left_the_document_by_a_clear(self, pods: Pods):
        session = await pods.session()
        await many(session, RECEIPT_BATCH + 1)
        await session.clear()
        for number in range(3):  # the first of them has the receipts stored, the next writes that down
            await taken(session, f"new{number}")
            await until(lambda: session._storing_receipts is None)
        assert pods.store.of("alice").find("t1") is None
        again = await session.begin(BeginTurn(turn_id="t1", fingerprint=fingerprint("message 1")))
        assert isinstance(again, protocol.Replayed)
        assert again.reply_text == "reply to message 1"

    async def test_receipts_are_listed_in_pages_each_turn_once(self, pods: Pods):
        session = await pods.session()
        await many(session, 40)
        pages = [pods.receipts.pages["alice", page] for page in range(1, len(pods.receipts.pages) + 1)]
        listed = [turn_id for page in pages for turn_id in page]
        assert listed == [f"t{number}" for number in range(1, len(listed) + 1)]
        assert len(pages) <= 40 / RECEIPT_BATCH
        assert len(listed) >= 40 - WINDOW - 2 * RECEIPT_BATCH

    async def test_a_completion_that_is_sent_again_is_known_although_its_turn_has_left_the_document(self, pods: Pods):
        session = await pods.session()
        sent = completion(await begun(session, "t0"), "t0")
        first = await session.complete(sent)
        session.sent("t0")
        await many(session, 12)
        await session.set_summary(SetSummary(text="", through_turn=8))
        assert pods.store.of("alice").find("t0") is None
        again = await session.complete(sent)
        assert isinstance(first, protocol.Committed)
        assert isinstance(again, protocol.Replayed)
        assert (again.sequence, again.reply_text) == (first.sequence, first.reply_text)

    async def test_a_key_whose_reply_is_no_longer_kept_is_refused_and_not_run_again(self, pods: Pods):
        session = await pods.session()
        await many(session, 30)
        pods.receipts.expire()
        for answer in (
            await session.begin(BeginTurn(turn_id="t1")),
            await session.outcome(TurnId(turn_id="t1")),
            await session.add_message(AddMessage(turn_id="t1", user_text="message 1", reply_text="x")),
        ):
            assert isinstance(answer, protocol.Expired)
            assert answer.session_id == "s"

    async def test_an_id_that_was_made_for_the_request_is_not_looked_for(self, pods: Pods):
        session = await pods.session()
        await many(session, 30)
        asked: list[str] = []

        async def get(_: str, turn_id: str) -> None:
            asked.append(turn_id)

        pods.receipts.get = get  # type: ignore[assignment, method-assign]
        assert (await session.begin(BeginTurn(turn_id="new", keyed=False))).status == "granted"
        assert asked == []

    async def test_an_id_that_was_used_for_another_message_is_a_mismatch(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1", "once")
        asked = BeginTurn(turn_id="t1", fingerprint=fingerprint("twice"))
        assert (await session.begin(asked)).status == "mismatch"

    async def test_a_retry_may_name_the_session_that_it_was_told_and_no_other(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1", "hi")
        asked = BeginTurn(turn_id="t1", fingerprint=fingerprint("hi"), session_id="s")
        assert (await session.begin(asked)).status == "replayed"
        assert (await session.begin(asked.model_copy(update={"session_id": "another"}))).status == "mismatch"

    async def test_a_message_that_was_added_under_an_id_is_known_by_it(self, pods: Pods):
        session = await pods.session()
        added = AddMessage(turn_id="k", user_text="one", reply_text="reply to one")
        assert (await session.add_message(added)).status == "committed"
        assert (await session.add_message(added)).status == "replayed"
        other = added.model_copy(update={"user_text": "two"})
        assert (await session.add_message(other)).status == "mismatch"
        assert (await session.begin(BeginTurn(turn_id="k", fingerprint=fingerprint("two")))).status == "mismatch"

    async def test_at_a_new_activation_that_has_not_read_it_the_completion_finds_it(self, pods: Pods):
        old, new = await pods.session("old"), await pods.session("new")
        await taken(old, "t1", "hello")
        grant = await begun(new, "t1", "hello")
        answer = await new.complete(completion(grant, "t1", "hello"))
        assert answer.status == "replayed"
        assert len(pods.store.of("alice").exchanges) == 1


class TestOvertaken:
    async def test_a_completion_that_another_came_before_is_stale(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        await session.add_message(AddMessage(user_text="a", reply_text="b"))
        assert (await session.complete(completion(grant, "t1"))).status == "stale"
        assert [item.user_text for item in await session.history()] == ["a"]
        assert (await taken(session, "t1")).status == "committed"

    async def test_a_history_cleared_during_a_turn_makes_it_stale(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1")
        grant = await begun(session, "t2")
        await session.clear()
        assert (await session.complete(completion(grant, "t2"))).status == "stale"
        assert await session.history() == []

    async def test_an_expired_lease_is_no_reason_to_refuse_a_turn_that_nobody_overtook(self):
        session = await Pods(lease_seconds=0.01).session()
        grant = await begun(session, "t1")
        await asyncio.sleep(0.02)
        assert (await session.complete(completion(grant, "t1"))).status == "committed"

    async def test_an_old_activation_that_nobody_ended_answers_from_what_is_stored(self, pods: Pods):
        old, new = await pods.session("a"), await pods.session("b")
        await taken(old, "t1")
        assert isinstance(await new.outcome(TurnId(turn_id="t1")), protocol.Replayed)
        await taken(new, "t2", "two")
        assert isinstance(await old.outcome(TurnId(turn_id="t2")), protocol.Replayed)
        assert [said.turn_id for said in await old.history()] == ["t1", "t2"]

    async def test_of_two_activations_only_one_commits_on_a_turn_number(self, pods: Pods):
        old, new = await pods.session("old"), await pods.session("new")
        grants = await begun(old, "t-old"), await begun(new, "t-new")
        assert grants[0].turn_no == grants[1].turn_no
        answers = await asyncio.gather(
            old.complete(completion(grants[0], "t-old")), new.complete(completion(grants[1], "t-new"))
        )
        assert sorted(item.status for item in answers) == ["committed", "stale"]
        assert len(pods.store.of("alice").exchanges) == 1

    async def test_a_summary_and_a_publication_make_no_open_turn_stale(self, pods: Pods):
        session = await pods.session()
        await many(session, WINDOW + 1)
        grant = await begun(session, "open")
        await session.set_summary(SetSummary(text="they spoke", through_turn=1))
        assert (await session.complete(completion(grant, "open"))).status == "committed"
        assert pods.store.of("alice").running_summary == "they spoke"

    async def test_a_summary_drops_what_it_holds(self, pods: Pods):
        session = await pods.session()
        await many(session, WINDOW + 2 * RECEIPT_BATCH)
        overflow = pods.store.of("alice").overflow
        await session.set_summary(SetSummary(text="they spoke", through_turn=overflow[1].turn_no))
        left = pods.store.of("alice")
        assert [item.turn_id for item in left.overflow] == [item.turn_id for item in overflow[2:]]
        assert (left.find(overflow[0].turn_id), left.find(overflow[1].turn_id)) == (None, None)

    async def test_a_summary_is_due_when_so_much_has_left_the_window_and_at_the_next_activation_still(self, pods: Pods):
        session = await pods.session()
        armed: list[str] = []
        session.arm_summary = lambda: armed.append("timer")
        await many(session, WINDOW + SUMMARY_BATCH - 1)
        assert (armed, await session.summary_due()) == ([], False)
        await taken(session, "more")
        assert armed == ["timer"]
        assert await (await pods.session("pod-b")).summary_due()

    async def test_a_summary_of_what_was_cleared_meanwhile_is_ignored(self, pods: Pods):
        session = await pods.session()
        await many(session, WINDOW + 1)
        await session.clear()
        await session.set_summary(SetSummary(text="they spoke", through_turn=1))
        assert pods.store.of("alice").running_summary == ""


class TestCancelled:
    async def test_a_cancelled_turn_is_not_committed_even_at_another_activation(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        assert (await session.cancel(TurnId(turn_id="t1"))).status == "cancelled"
        other = await pods.session("pod-b")
        for answer in (
            await session.complete(completion(grant, "t1")),
            await other.complete(completion(grant, "t1")),
            await other.begin(BeginTurn(turn_id="t1")),
        ):
            assert answer.status == "cancelled"
        assert await other.history() == []

    async def test_it_gives_its_lease_to_the_next(self, pods: Pods):
        session = await pods.session()
        await begun(session, "t1")
        await session.cancel(TurnId(turn_id="t1"))
        await begun(session, "t2")

    async def test_a_committed_turn_can_no_longer_be_cancelled(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1")
        assert (await session.cancel(TurnId(turn_id="t1"))).status == "replayed"

    async def test_what_became_of_a_turn_is_told(self, pods: Pods):
        session = await pods.session()
        await taken(session, "committed")
        await session.cancel(TurnId(turn_id="cancelled"))
        await begun(session, "open")
        await session.begin(BeginTurn(turn_id="waiting"))
        told = [
            (await session.outcome(TurnId(turn_id=turn_id))).status
            for turn_id in ("committed", "cancelled", "open", "waiting", "unknown")
        ]
        assert told == ["replayed", "cancelled", "open", "open", "not_committed"]


class TestWrites:
    @pytest.mark.parametrize("fault", ["lost before", "lost after"])
    async def test_a_write_whose_answer_is_lost_commits_exactly_once(self, pods: Pods, fault: str):
        session = await pods.session()
        pods.store.faults = [fault]
        answer = await taken(session, "t1", "hello")
        assert isinstance(answer, (protocol.Committed, protocol.Replayed))
        assert answer.reply_text == "reply to hello"
        assert [item.turn_id for item in pods.store.of("alice").exchanges] == ["t1"]
        assert pods.outboxes.sessions == [session]

    async def test_a_write_that_never_gets_through_raises_and_leaves_nothing(self, pods: Pods):
        session = await pods.session()
        pods.store.faults = ["lost before"] * 4
        with pytest.raises(DaprUnavailable):
            await taken(session, "t1")
        assert pods.store.of("alice") == Document()
        assert await session.history() == []

    async def test_nothing_is_committed_before_the_journal_holds_the_user(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        pods.journal.down = True
        with pytest.raises(DaprUnavailable):
            await session.complete(completion(grant, "t1"))
        with pytest.raises(DaprUnavailable):
            await session.add_message(AddMessage(user_text="a", reply_text="b"))
        assert pods.store.writes == 0
        pods.journal.down = False
        assert (await session.complete(completion(grant, "t1"))).status == "committed"

    async def test_the_journal_holds_the_user_first_then_the_turn_is_written_then_it_is_published(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        done = pods.journal.done
        save, start = pods.store.save, pods.outboxes.start

        async def saved(user_id: str, document: Document) -> None:
            done.append("write")
            await save(user_id, document)

        def started(published: Session) -> None:
            done.append("publish")
            start(published)

        pods.store.save, pods.outboxes.start = saved, started  # type: ignore[assignment, method-assign]
        done.clear()
        await session.complete(completion(grant, "t1"))
        order = [step for step in done if step != "note alice"]
        assert order == ["cover alice", "write", "publish"]

    async def test_who_gives_up_while_another_commits_does_not_take_the_user_out_of_the_journal(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        going_on = asyncio.Event()
        save = pods.store.save

        async def saved(user_id: str, document: Document) -> None:
            await going_on.wait()
            await save(user_id, document)

        pods.store.save = saved  # type: ignore[method-assign]
        adding = asyncio.create_task(session.add_message(AddMessage(user_text="a", reply_text="b")))
        await until(lambda: "cover alice" in pods.journal.done)
        await session.abandon(TurnRef(turn_id="t1", lease_token=grant.lease_token))
        going_on.set()
        assert (await adding).status == "committed"
        assert pods.journal.owed == {"alice"}

    async def test_who_is_owed_nothing_is_no_longer_in_the_journal(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1")
        session.all_sent()
        assert pods.journal.users == {"alice"}
        session.sent("t1")
        session.all_sent()
        assert pods.journal.users == set()

    async def test_a_turn_that_is_given_up_leaves_the_journal_too(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        await session.abandon(TurnRef(turn_id="t1", lease_token=grant.lease_token))
        assert pods.journal.done[-2:] == ["note alice", "release alice"]

    async def test_what_was_sent_is_written_down_with_the_next_turn_and_by_no_write_of_its_own(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1")
        session.sent("t1")
        assert await session.unsent() == []
        await taken(session, "t2")
        assert [item.turn_id for item in pods.store.of("alice").outbox] == ["t2"]
        assert pods.store.writes == 2

    async def test_an_activation_with_unpublished_events_has_them_published(self, pods: Pods):
        await taken(await pods.session("first"), "t1")
        pods.outboxes.sessions.clear()
        again = await pods.session("second")
        assert pods.outboxes.sessions == [again]

    async def test_a_session_that_is_asked_to_publish_is_in_the_journal_before_it_answers(self, pods: Pods):
        await taken(await pods.session("first"), "t1")
        again = await pods.session("second")
        pods.journal.users.clear()
        assert (await again.publish_events()).status == "done"
        assert pods.journal.users == {"alice"}

    async def test_a_full_document_takes_nothing_from_anybody(self, pods: Pods, monkeypatch: pytest.MonkeyPatch):
        session = await pods.session()
        grant = await begun(session, "t1")
        await session.add_message(AddMessage(user_text="a", reply_text="b", turn_id="t0"))
        monkeypatch.setattr("chat_service.document.BACKLOG", 1)
        assert (await session.begin(BeginTurn(turn_id="t2"))).status == "full"
        late = completion(replace(grant, turn_no=2), "t1")
        assert (await session.complete(late)).status == "full"
        assert (await session.add_message(AddMessage(user_text="a", reply_text="b"))).status == "full"
        assert (await session.begin(BeginTurn(turn_id="t0"))).status == "replayed"

    async def test_receipts_that_could_not_be_stored_are_stored_later(self, pods: Pods):
        session = await pods.session()
        pods.receipts.down = True
        await many(session, 20)
        assert pods.receipts.receipts == {}
        assert len(pods.store.of("alice").exchanges) == 20
        pods.receipts.down = False
        for number in range(21, 24):
            await taken(session, f"t{number}")
            await until(lambda: session._storing_receipts is None)
        assert ("alice", "t1") in pods.receipts.receipts
        assert (await session.begin(BeginTurn(turn_id="t1"))).status == "replayed"


class TestACountThatDiffers:
    async def test_after_the_store_lost_everything_the_user_goes_on(self, pods: Pods):
        session = await pods.session()
        for number in range(3):
            await taken(session, f"t{number}")
        pods.store.entries.clear()
        for number in range(3, 6):
            assert (await taken(session, f"t{number}")).status == "committed"
        assert [item.turn_id for item in pods.store.of("alice").window] == [f"t{number}" for number in range(1, 6)]

    @pytest.mark.parametrize("count", [1, 7, 50])
    async def test_after_an_older_value_was_restored_the_next_turn_is_committed_once(self, pods: Pods, count: int):
        session = await pods.session()
        await taken(session, "t1")
        older = replace(pods.store.entries["alice"])
        await taken(session, "t2")
        pods.store.entries["alice"] = replace(older, count=count)
        grant = await begun(session, "t3")
        answer = await session.complete(completion(grant, "t3"))
        if answer.status == "stale":  # the history went back meanwhile
            answer = await session.complete(completion(await begun(session, "t3"), "t3"))
        assert answer.status == "committed"
        assert (await taken(session, "t4")).status == "committed"
        assert [item.turn_id for item in pods.store.of("alice").exchanges] == ["t1", "t3", "t4"]

    async def test_a_moment_without_the_store_is_no_reason_to_look_for_another_count(self, pods: Pods):
        session = await pods.session()
        await taken(session, "t1")
        pods.store.faults = ["lost before", "lost before"]
        await taken(session, "t2")
        assert (pods.store.entries["alice"].count, pods.store.of("alice").rev) == (2, 2)


class TestActiveElsewhere:
    async def test_a_session_whose_actor_has_moved_writes_nothing_and_is_forgotten(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        pods.store.moved.add("alice")
        with pytest.raises(ActiveElsewhere):
            await session.complete(completion(grant, "t1"))
        assert pods.host().find("alice") is None
        assert not session.active
        assert pods.store.of("alice") == Document()

    async def test_whoever_waits_for_it_is_woken(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1")
        await session.begin(BeginTurn(turn_id="t2"), stays=True)
        waiting = asyncio.create_task(session.moved_up("t2"))
        await asyncio.sleep(0)
        pods.store.moved.add("alice")
        with pytest.raises(ActiveElsewhere):
            await session.complete(completion(grant, "t1"))
        await asyncio.wait_for(waiting, 1)

    async def test_forgetting_an_old_session_leaves_the_new_one_alone(self, pods: Pods):
        old = await pods.session()
        pods.host().deactivate("alice")
        new = await pods.session()
        pods.host().forget(old)
        assert pods.host().find("alice") is new


class TestErased:
    async def test_nothing_is_left_but_the_counters(self, pods: Pods):
        session = await pods.session()
        await many(session, 20)
        erased = await session.erase()
        assert erased.sequence == 20
        assert erased.removed["receipts"] >= RECEIPT_BATCH
        left = pods.store.of("alice")
        assert (left.exchanges, left.running_summary, left.sequence) == ((), "", 20)
        assert pods.receipts.receipts == {}
        assert (await taken(session, "new")).status == "committed"
        assert pods.store.of("alice").sequence == 21

    async def test_receipts_that_are_on_their_way_meanwhile_are_erased_too(self, pods: Pods):
        session = await pods.session()
        pods.receipts.down = True
        await many(session, 20)
        pods.receipts.down = False
        going_on = asyncio.Event()
        put = pods.receipts.put

        async def slow(user_id: str, page: int, turns: Sequence[Exchange | Receipt]) -> None:
            await going_on.wait()
            await put(user_id, page, turns)

        pods.receipts.put = slow  # type: ignore[method-assign]
        await taken(session, "last")
        assert session._storing_receipts is not None
        erasing = asyncio.create_task(session.erase())
        await asyncio.sleep(0.005)
        going_on.set()
        await erasing
        await until(lambda: session._storing_receipts is None)
        assert (pods.receipts.receipts, pods.receipts.pages) == ({}, {})
        assert pods.store.of("alice").exchanges == ()

    async def test_an_erasure_that_failed_half_way_goes_on_when_it_is_asked_again(self, pods: Pods):
        session = await pods.session()
        await many(session, 20)
        pods.store.faults = ["lost before"] * 4
        with pytest.raises(DaprUnavailable):
            await session.erase()
        assert (await session.erase()).sequence == 20
        assert (pods.receipts.receipts, pods.store.of("alice").exchanges) == ({}, ())

    async def test_the_turn_that_is_open_meanwhile_is_refused(self, pods: Pods):
        session = await pods.session()
        grant = await begun(session, "t1", "SECRET")
        await taken_by_hand(session)
        await session.erase()
        assert (await session.complete(completion(grant, "t1", "SECRET"))).status == "cancelled"

    async def test_somebody_who_never_said_anything_leaves_no_trace_of_the_erasure(self, pods: Pods):
        assert (await (await pods.session()).erase()).sequence == 0
        assert pods.store.entries == {}


async def taken_by_hand(session: Session) -> None:
    await session.add_message(AddMessage(user_text="a", reply_text="b"))
