"""What is known of a user: asked for once while their session is active here, and again after each change."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from chat_service import memory
from chat_service.memory import Memory, MemoryClient, Remembered
from daca_common.dapr import DaprClient
from support.chat import JUNAID, Pod, Start
from support.sidecar import FakeSidecar
from support.waiting import until


class MemoryService:
    """Answers with what it is told to, and counts the questions."""

    def __init__(self) -> None:
        self.name = "Junaid"
        self.asked = 0
        self.status = 200
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def answer(self, method: str, path: str, _: bytes) -> tuple[int, bytes]:
        self.asked += 1
        told = JUNAID | {"name": self.name}
        await self.go_on.wait()
        return self.status, orjson.dumps(told)


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
async def client(service: MemoryService) -> AsyncIterator[MemoryClient]:
    async with FakeSidecar() as sidecar, DaprClient(sidecar.port) as dapr:
        sidecar.services["memory"] = service.answer
        yield MemoryClient(dapr, "memory", timeout_seconds=2.0)


async def test_it_is_asked_for_once(client: MemoryClient, service: MemoryService):
    remembered = Remembered()
    names = {(await client.get("junaid", remembered)).name for _ in range(3)}
    assert (names, service.asked) == ({"Junaid"}, 1)


async def test_after_a_change_it_is_asked_for_anew(client: MemoryClient, service: MemoryService):
    remembered = Remembered()
    await client.get("junaid", remembered)
    service.name = "Ayesha"
    remembered.forget()
    assert (await client.get("junaid", remembered)).name == "Ayesha"


async def test_what_was_on_its_way_during_a_change_is_not_remembered(client: MemoryClient, service: MemoryService):
    remembered = Remembered()
    service.go_on.clear()
    asking = asyncio.create_task(client.get("junaid", remembered))
    await until(lambda: service.asked)
    service.name = "Ayesha"
    remembered.forget()
    service.go_on.set()
    assert (await asking).name == "Junaid"
    assert (await client.get("junaid", remembered)).name == "Ayesha"


async def test_a_failure_is_not_remembered(client: MemoryClient, service: MemoryService):
    remembered = Remembered()
    service.status = 500
    assert await client.get("junaid", remembered) == Memory.of_new_user("junaid")
    service.status = 200
    assert (await client.get("junaid", remembered)).name == "Junaid"


async def test_a_session_that_was_not_told_of_a_change_asks_anew_after_a_while(
    client: MemoryClient, service: MemoryService, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory, "REMEMBERED_SECONDS", 0.0)
    remembered = Remembered()
    await client.get("junaid", remembered)
    service.name = "Ayesha"
    assert (await client.get("junaid", remembered)).name == "Ayesha"


class TestOfAPod:
    @pytest.fixture
    async def pods(self, start: Start, service: MemoryService) -> list[Pod]:
        pods = await start(2)
        for pod in pods:
            pod.sidecar.services["agent-memory-service"] = service.answer
        return pods

    async def greeted(self, pod: Pod) -> Any:
        return (await pod.say("Hi there")).json()["reply"]

    async def test_turns_through_any_pod_ask_once_between_two_changes(self, pods: list[Pod], service: MemoryService):
        for number in range(4):
            assert "Junaid" in await self.greeted(pods[number % 2])
        assert service.asked == 1
        service.name = "Ayesha"
        await pods[1].tell("MemoryChanged")
        for number in range(4):
            assert "Ayesha" in await self.greeted(pods[number % 2])
        assert service.asked == 2

    async def test_a_session_that_moves_asks_where_it_is_then(self, pods: list[Pod], service: MemoryService):
        one, two = pods
        await self.greeted(one)
        await one.move(two)
        service.name = "Ayesha"
        await one.tell("MemoryChanged")
        await two.move(one)
        assert "Ayesha" in await self.greeted(one)
