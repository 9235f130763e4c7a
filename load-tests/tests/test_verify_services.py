"""The checker against chat-service and agent-memory-service themselves, each over a sidecar in memory."""

import asyncio
import time
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from actor_load.checker import rules, verification
from actor_load.checker.reader import Reader, Sources
from actor_load.checker.told import Notes, Reply, Told, Try, Turn
from agent_memory_service.main import Service
from agent_memory_service.settings import Settings
from support.chat import cluster
from support.serving import serving
from support.sidecar import FakeSidecar
from support.waiting import until

NO_SUMMARIES: dict[str, Any] = {"summary_quiet_seconds": 3600, "summary_max_wait_seconds": 3600}


class Services:
    """Both services, and clients that note what they are told."""

    def __init__(self, pod, memory):
        self.told = Told()
        self._pod = pod
        self._memory = memory

    async def say(self, user_id, text, key, session="1"):
        """One try of a turn; what it was told is noted."""
        sent, session_id = time.time(), f"{user_id}-{session}"
        answer = await self._pod.say(text, user_id=user_id, key=key, body={"metadata": {"session_id": session_id}})
        body, notes = answer.json(), Notes()
        if answer.status_code == 200:
            reply = Reply(body["reply"], body["metadata"]["session_id"], body["turn_id"], body["sequence"])
            told = Try(sent, time.time(), "answered", "200", reply)
        else:
            told = Try(sent, time.time(), "refused", f"{answer.status_code} {body['type']}")
        notes.turn(Turn(user_id, key, session_id, text, sent, (told,)))
        self.told.add(notes.take())

    async def deliver(self):
        """Brings the events that were published to agent-memory-service, each twice, as a broker may."""
        async with httpx2.AsyncClient() as client:
            for event in [published.event for published in self._pod.sidecar.published for _ in range(2)]:
                answer = await client.post(f"{self._memory}/conversations", json=event)
                assert answer.json() == {"status": "SUCCESS"}

    async def verify(self):
        """Reads, and judges."""
        sidecar = f"http://127.0.0.1:{self._pod.sidecar.port}"
        reader = Reader(Sources(self._pod.sidecar.app_url, self._memory, sidecar))
        return await asyncio.to_thread(verification.verify, self.told, reader, settle_seconds=0)


@pytest.fixture
async def services():
    """One pod of each, and people who have said something."""

    @asynccontextmanager
    async def both():
        async with cluster() as start, FakeSidecar() as sidecar:
            (pod,) = await start()
            async with serving(Service(Settings(dapr_http_port=sidecar.port, **NO_SUMMARIES)).app) as memory:
                yield Services(pod, memory)

    async with both() as services:
        for number in range(8):
            await services.say("ann", f"message {number}", f"ann-{number}", session="1" if number < 6 else "2")
        await services.say("ann", "message 3", "ann-3")  # another client, under the same key
        await services.say("ann", "another message", "ann-4")  # the key was used for another message
        await services.say("bob", "   ", "bob-0")
        await services.say("bob", "hello", "bob-1")
        await until(lambda: len(services._pod.sidecar.published) == 9)
        yield services


async def test_what_the_services_tell_and_store_is_without_a_violation(services):
    assert [len(turns) for turns in services.told.users.values()] == [10, 2]
    await services.deliver()
    found = await services.verify()
    assert found.violations == []
    assert not found.unread
    assert (found.checked, found.not_checked, found.transcripts, found.histories) == (12, 0, 3, 2)
    assert found.asked == 10


async def test_an_event_that_never_comes_is_found(services):
    services._pod.sidecar.published.pop(4)
    await services.deliver()
    found = await services.verify()
    assert {violation.rule for violation in found.violations} == {rules.KEPT, rules.TAIL}
    assert {violation.turn_id for violation in found.violations if violation.rule == rules.KEPT} == {"ann-4"}


async def test_a_history_that_was_cleared_behind_the_clients_back_is_found(services):
    await services.deliver()
    await services._pod.client.delete("/chat/ann/history")
    found = await services.verify()
    assert [(violation.rule, violation.user_id) for violation in found.violations] == [(rules.TAIL, "ann")]
