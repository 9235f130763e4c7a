"""Probes, and waiting for open requests before a pod goes."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from daca_common import health as health_module
from daca_common.health import Health, OpenRequests
from fastapi import FastAPI


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(health_module, "QUIET_SECONDS", 0.5)
    return Health()


@pytest.fixture
async def client(health: Health) -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI()
    app.include_router(health.router())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "done"

    @app.get("/fails")
    async def fails() -> str:
        raise ZeroDivisionError

    app.add_middleware(OpenRequests, health=health)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def statuses(client: httpx2.AsyncClient) -> dict[str, int]:
    return {path: (await client.get(path)).status_code for path in ("/livez", "/readyz", "/healthz/app")}


async def test_a_service_that_starts_is_alive_and_not_ready(client: httpx2.AsyncClient) -> None:
    assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/healthz/app": 200}


async def test_a_service_that_is_ready_says_so(client: httpx2.AsyncClient, health: Health) -> None:
    health.ready = True
    assert await statuses(client) == {"/livez": 200, "/readyz": 200, "/healthz/app": 200}


async def test_a_service_that_drains_is_alive_and_not_ready(client: httpx2.AsyncClient, health: Health) -> None:
    health.ready = True
    health.draining = True
    assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/healthz/app": 200}


async def test_a_drained_service_tells_its_sidecar(client: httpx2.AsyncClient, health: Health) -> None:
    health.ready = True
    await health.drain()
    assert await statuses(client) == {"/livez": 200, "/readyz": 503, "/healthz/app": 503}


async def test_an_open_request_is_waited_for(client: httpx2.AsyncClient, health: Health) -> None:
    request = asyncio.create_task(client.get("/slow"))
    await asyncio.sleep(0.1)
    await health.quiet()
    assert health.open_requests == 0
    assert request.done()
    assert request.result().json() == "done"


async def test_requests_that_still_come_are_waited_for(client: httpx2.AsyncClient, health: Health) -> None:
    began = time.monotonic()
    quiet = asyncio.create_task(health.quiet())
    while time.monotonic() - began < 1:
        await client.get("/nothing")
        await asyncio.sleep(0.05)
    assert not quiet.done()
    await quiet


async def test_requests_that_never_stop_are_not_waited_for_without_end(
    client: httpx2.AsyncClient, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "LONGEST_QUIET_SECONDS", 0.7)
    early = asyncio.create_task(client.get("/slow"))

    async def read_on() -> None:
        while True:
            await asyncio.gather(client.get("/slow"), client.get("/nothing"))

    readers = [asyncio.create_task(read_on()) for _ in range(3)]
    async with asyncio.timeout(5):
        await health.quiet()
    assert early.done()
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)


async def test_probes_keep_nobody_from_going(client: httpx2.AsyncClient, health: Health) -> None:
    quiet = asyncio.create_task(health.quiet())
    began = time.monotonic()
    while not quiet.done():
        await statuses(client)
        await asyncio.sleep(0.02)
    assert time.monotonic() - began < 5


async def test_a_request_that_fails_is_no_longer_open(client: httpx2.AsyncClient, health: Health) -> None:
    assert (await client.get("/fails")).status_code == 500
    assert health.open_requests == 0


async def test_clients_are_asked_to_connect_anew_while_the_pod_drains(
    client: httpx2.AsyncClient, health: Health
) -> None:
    assert "connection" not in (await client.get("/nothing")).headers
    health.draining = True
    assert (await client.get("/nothing")).headers["connection"] == "close"
