"""The outbox on its way to the broker: in order, again after a failure, and no longer than the session lives."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from chat_service.events import EventPublisher, cloud_event
from chat_service.session import AddMessage, Session, SessionHost
from daca_common.dapr import DaprError
from support.store import MemoryStore


class Broker:
    """Takes events, or fails as often as it is told to."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.failures = 0

    async def publish(self, pubsub: str, topic: str, event: Mapping[str, Any]) -> None:
        assert (pubsub, topic) == ("pubsub", "conversations")
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
        self.publisher = EventPublisher(broker, "pubsub", "conversations")  # type: ignore[arg-type]
        self.host = SessionHost("pod", store, 5.0, self.publisher.start, self.publisher.stop)  # type: ignore[arg-type]

    async def say(self, text: str) -> Session:
        session = await self.host.activate("alice")
        await session.add_message(AddMessage(user_text=text, reply_text="reply", session_id="s"))
        return session


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_service.events.SETTLE_SECONDS", 0.01)
    monkeypatch.setattr("chat_service.events.RETRY_SECONDS", (0.01,))


@pytest.fixture
async def pod() -> AsyncIterator[Pod]:
    pod = Pod(MemoryStore(), Broker())
    yield pod
    pod.host.deactivate("alice")


def broker(pod: Pod) -> Broker:
    return pod.publisher._dapr  # type: ignore[return-value]


def store(pod: Pod) -> MemoryStore:
    return pod.host.store  # type: ignore[return-value]


async def test_a_committed_turn_is_published_once_and_marked(pod: Pod):
    await pod.say("Hi there")
    await asyncio.wait_for(pod.publisher.drain(), 2)
    (event,) = broker(pod).events
    assert event["type"] == "ConversationUpdated"
    assert event["data"] == event["data"] | {
        "event_type": "ConversationUpdated",
        "event_id": event["id"],
        "sequence": 1,
        "user_id": "alice",
        "session_id": "s",
        "user_message": "Hi there",
        "assistant_reply": "reply",
    }
    assert store(pod).of("alice").outbox == ()


async def test_events_leave_in_the_order_of_the_turns(pod: Pod):
    for number in range(10):
        await pod.say(f"m{number}")
    await asyncio.wait_for(pod.publisher.drain(), 2)
    assert broker(pod).sequences == list(range(1, 11))


async def test_a_broker_that_is_down_delays_events_and_loses_none(pod: Pod):
    broker(pod).failures = 3
    for number in range(7):
        await pod.say(f"m{number}")
    await asyncio.wait_for(pod.publisher.drain(), 2)
    assert broker(pod).sequences == list(range(1, 8))


async def test_what_a_pod_did_not_get_to_publish_is_published_by_the_next_activation(pod: Pod):
    broker(pod).failures = 1000
    await pod.say("Hi there")
    await asyncio.sleep(0.02)
    pod.host.deactivate("alice")
    await asyncio.wait_for(pod.publisher.drain(), 1)
    assert broker(pod).events == []
    broker(pod).failures = 0
    next_pod = Pod(store(pod), broker(pod))
    await next_pod.host.activate("alice")
    await asyncio.wait_for(next_pod.publisher.drain(), 2)
    assert broker(pod).sequences == [1]


async def test_an_event_that_is_sent_again_keeps_its_id(pod: Pod):
    await pod.say("Hi there")
    await asyncio.wait_for(pod.publisher.drain(), 2)
    (event,) = broker(pod).events
    (exchange,) = store(pod).of("alice").exchanges
    assert cloud_event("alice", exchange) == event
    assert cloud_event("bob", exchange)["id"] != event["id"]
