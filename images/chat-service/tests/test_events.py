"""The outbox on its way to the broker: in order, at once, after a failure again, handed over where a session ends."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from chat_service import events
from chat_service.events import EventPublisher
from chat_service.protocol import AddMessage
from chat_service.session import Session, SessionHost
from daca_common.conversation_updated import CloudEvent
from daca_common.dapr import DaprError
from support.store import MemoryJournal, MemoryReceipts, MemoryStore
from support.waiting import until


class Broker:
    """Takes events, or fails as often as it is told to."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.failures = 0
        self.answers = asyncio.Event()
        """Set: it answers. Else it hangs."""
        self.answers.set()
        self.asked = 0

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any], *, timeout_seconds: float) -> None:
        assert (pubsub, topic) == ("pubsub", "conversations")
        assert timeout_seconds > 0
        self.asked += 1
        await self.answers.wait()
        if self.failures:
            self.failures -= 1
            raise DaprError(500, "ERR_PUBSUB_PUBLISH_MESSAGE", "the broker is down")
        self.events.append(event)

    @property
    def sequences(self) -> list[int]:
        return [event["data"]["sequence"] for event in self.events]


class Pod:
    """A host of sessions with a publisher, on a store and a broker that outlive it."""

    def __init__(self, store: MemoryStore, broker: Broker) -> None:
        self.left: list[str] = []
        self.store = store
        self.broker = broker
        self.journal = MemoryJournal()
        self.publisher = EventPublisher(broker, "pubsub", "conversations", self.left.append)  # type: ignore[arg-type]
        self.host = SessionHost(
            name="pod",
            address="pod:8010",
            documents=store,
            receipts=MemoryReceipts(),
            journal=self.journal,
            publisher=self.publisher,
            lease_seconds=5.0,
            queue_limit=64,
        )

    async def say(self, text: str, user_id: str = "alice") -> Session:
        session = await self.host.activate(user_id)
        await session.add_message(AddMessage(user_text=text, reply_text="reply", session_id="s"))
        return session

    async def published(self) -> None:
        await until(lambda: not self.publisher._tasks)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daca_common.backoff.random.uniform", lambda low, high: 0.01)


@pytest.fixture
def pod() -> Pod:
    return Pod(MemoryStore(), Broker())


async def test_a_committed_turn_is_published_as_its_event(pod: Pod):
    await pod.say("Hi there")
    await pod.published()
    (event,) = pod.broker.events
    data = CloudEvent.model_validate(event).data
    assert (event["type"], event["id"]) == ("ConversationUpdated", data.event_id)
    assert (data.sequence, data.user_id, data.session_id) == (1, "alice", "s")
    assert (data.user_message, data.assistant_reply) == ("Hi there", "reply")


async def test_publishing_costs_no_write(pod: Pod):
    await pod.say("Hi there")
    await pod.published()
    assert pod.store.writes == 1
    assert pod.journal.users == set()


async def test_events_leave_in_the_order_of_the_turns_while_more_are_committed(pod: Pod):
    for number in range(200):
        await pod.say(f"m{number}")
    await pod.published()
    assert pod.broker.sequences == list(range(1, 201))


async def test_an_event_that_is_committed_when_the_last_one_has_just_left_leaves_too(pod: Pod):
    for number in range(5):
        await pod.say(f"m{number}")
        await pod.published()
    assert pod.broker.sequences == [1, 2, 3, 4, 5]


async def test_a_broker_that_is_down_delays_events_and_loses_none(pod: Pod):
    pod.broker.failures = 3
    for number in range(7):
        await pod.say(f"m{number}")
    await pod.published()
    assert pod.broker.sequences == list(range(1, 8))


async def test_what_a_pod_did_not_get_to_publish_is_published_by_the_next_activation(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("chat_service.events.DRAIN_SECONDS", 0.02)
    pod.broker.failures = 1000
    await pod.say("Hi there")
    await pod.publisher.drain()
    pod.broker.failures = 0
    next_pod = Pod(pod.store, pod.broker)
    await next_pod.host.activate("alice")
    await next_pod.published()
    assert pod.broker.sequences == [1]


async def test_a_session_that_ends_with_something_unpublished_is_handed_over(pod: Pod):
    pod.broker.failures = 1000
    await pod.say("Hi there")
    await until(lambda: pod.broker.asked)
    pod.host.deactivate("alice")
    await pod.published()
    assert pod.left == ["alice"]


async def test_what_is_on_its_way_when_a_session_ends_is_not_handed_over(pod: Pod):
    pod.broker.answers.clear()
    await pod.say("Hi there")
    await until(lambda: pod.broker.asked)
    pod.host.deactivate("alice")
    pod.broker.answers.set()
    await pod.published()
    assert (pod.left, pod.broker.sequences, pod.journal.users) == ([], [1], set())


async def test_a_commit_that_lands_after_the_session_has_ended_is_handed_over(pod: Pod):
    session = await pod.host.activate("alice")
    pod.host.deactivate("alice")
    await session.add_message(AddMessage(user_text="late", reply_text="reply", session_id="s"))
    await pod.published()
    assert pod.left == ["alice"]


async def test_an_event_that_is_sent_again_keeps_its_id(pod: Pod):
    await pod.say("Hi there")
    await pod.published()
    again = Pod(pod.store, pod.broker)
    await again.host.activate("alice")
    await again.published()
    first, second = pod.broker.events
    assert first == second


async def test_a_broker_that_hangs_holds_up_so_many_publications_and_no_turn(pod: Pod):
    pod.broker.answers.clear()
    for number in range(2 * events.AT_ONCE):
        await pod.say("hi", f"user-{number}")
    assert pod.broker.asked <= events.AT_ONCE
    pod.broker.answers.set()
    await pod.published()
    assert len(pod.broker.events) == 2 * events.AT_ONCE


async def test_a_drain_ends_although_the_broker_does_not_answer(pod: Pod, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("chat_service.events.DRAIN_SECONDS", 0.02)
    pod.broker.answers.clear()
    await pod.say("hi")
    await asyncio.wait_for(pod.publisher.drain(), 1)
    await pod.published()
    assert pod.journal.users == {"alice"}  # others see to it
