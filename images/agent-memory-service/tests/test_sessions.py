"""Sessions are told that what is known of their user has changed, before the change is answered."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from agent_memory_service.documents import Documents
from agent_memory_service.memories import Memories
from agent_memory_service.sessions import Sessions
from aiohttp import web
from daca_common.dapr import DaprClient
from fastapi import FastAPI
from support.serving import serving
from support.sidecar import FakeSidecar

JUNAID = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}


@pytest.fixture
async def told(sidecar: FakeSidecar) -> AsyncIterator[list[Any]]:
    """What was known of the user each time when their session was told of a change."""
    told: list[Any] = []
    app = FastAPI()

    @app.put("/actors/UserSessionActor/{user_id}/method/MemoryChanged")
    async def memory_changed(user_id: str) -> dict[str, str]:
        stored = sidecar.state["statestore"].get(f"memory-{user_id}")
        told.append(stored.get("memory"))
        return {"status": "done"}

    @app.put("/actors/UserSessionActor/{user_id}/method/Erase")
    async def erase(user_id: str) -> dict[str, Any]:
        return {"status": "erased", "sequence": 0, "removed": {}}

    async with serving(app) as url:
        sidecar.app_url = url
        sidecar.backend.hosts.append(sidecar)
        yield told


async def test_a_session_is_told_once_a_memory_is_written(client: httpx2.AsyncClient, told: list[Any]) -> None:
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 200
    assert told == [JUNAID]


async def test_a_session_is_told_once_a_memory_is_erased(client: httpx2.AsyncClient, told: list[Any]) -> None:
    await client.post("/memories/junaid/initialize", json=JUNAID)
    assert (await client.delete("/memories/junaid")).status_code == 200
    assert told == [JUNAID, None]


async def test_a_session_is_told_once_a_new_summary_is_written(sidecar: FakeSidecar, told: list[Any]) -> None:
    async with DaprClient(sidecar.port) as dapr:
        memories = Memories(Documents(dapr, "statestore"), Sessions(dapr))
        begun = await memories.begin_summary("junaid")
        assert await memories.end_summary("junaid", begun, "Junaid likes novels.", [1])
        assert not await memories.end_summary("junaid", begun, "written over another", [1])
    assert [memory["user_summary"] for memory in told] == ["Junaid likes novels."]


async def test_a_session_that_does_not_answer_at_first_is_told_again(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, told: list[Any]
) -> None:
    failures = 2

    async def fail(request: web.Request) -> web.Response | None:
        nonlocal failures
        if "MemoryChanged" in request.path and failures:
            failures -= 1
            return web.Response(status=500)
        return None

    sidecar.before = fail
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 200
    assert told == [JUNAID]


async def test_what_was_written_is_answered_although_its_session_could_not_be_told(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: web.Request) -> web.Response | None:
        return web.Response(status=500) if "MemoryChanged" in request.path else None

    sidecar.before = fail
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 200
    assert "a session was not told that its memory has changed" in caplog.messages


async def test_where_no_chat_service_runs_nobody_is_told(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 200
    assert [request for request in sidecar.requests if "MemoryChanged" in request] != []
    assert "a session was not told that its memory has changed" not in caplog.messages
