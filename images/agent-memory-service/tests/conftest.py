"""The service over a sidecar in memory, spoken to over HTTP."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from agent_memory_service import events
from agent_memory_service.main import Service
from agent_memory_service.settings import Settings
from support.serving import Start
from support.sidecar import FakeSidecar


@pytest.fixture(autouse=True)
def gather_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are delivered one after the other do not wait for others, which do not come."""
    monkeypatch.setattr(events, "GATHER_SECONDS", 0.005)


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


@pytest.fixture
def start(sidecar: FakeSidecar) -> Start:
    """Starts a service, with settings of its own; a client of it."""

    @contextlib.asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
        # No summaries unless a test asks for them: they would be written whenever it suits them.
        quiet = {"summary_quiet_seconds": 3600, "summary_max_wait_seconds": 3600}
        service = Service(Settings(**{"dapr_http_port": sidecar.port} | quiet | settings))
        async with (
            service.app.router.lifespan_context(service.app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://memory") as client,
        ):
            yield client

    return start


@pytest.fixture
async def client(start: Start) -> AsyncIterator[httpx2.AsyncClient]:
    async with start() as client:
        yield client
