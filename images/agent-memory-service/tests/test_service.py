"""The service as a whole: welcome, probes, the end of its pod, and wrong settings."""

import asyncio
import os
import subprocess
import sys
import time

import httpx2
import pytest
from agent_memory_service.main import Service, main
from agent_memory_service.settings import Settings
from support.sidecar import FakeSidecar


async def probe(client: httpx2.AsyncClient, path: str) -> int:
    return (await client.get(path)).status_code


async def until_ready(client: httpx2.AsyncClient) -> None:
    deadline = time.monotonic() + 10
    while await probe(client, "/readyz") != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_the_welcome_names_the_service(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.status_code == 200
    assert "Welcome to the DACA Agent Memory Service" in answer.json()["message"]


async def test_the_api_is_documented(client: httpx2.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths) == {
        "/",
        "/memories/{user_id}",
        "/memories/{user_id}/initialize",
        "/memories/{user_id}/sessions",
        "/conversations",
        "/conversations/{session_id}",
        "/dead-letters",
        "/dead-letters/{letter_id}",
        "/dead-letters/{letter_id}/replay",
    }
    for operations in paths.values():
        for operation in operations.values():
            assert operation["description"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]
            assert "422" not in operation["responses"]  # FastAPI's own shape, which is not sent


async def test_it_is_alive_without_a_sidecar_and_ready_with_one() -> None:
    async with FakeSidecar() as sidecar:
        port = sidecar.port
    service = Service(Settings(dapr_http_port=port))
    transport = httpx2.ASGITransport(service.app)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx2.AsyncClient(transport=transport, base_url="http://memory") as client,
    ):
        await asyncio.sleep(0.1)
        assert [await probe(client, path) for path in ("/livez", "/readyz", "/healthz/app")] == [200, 503, 200]


async def test_readiness_latches(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await until_ready(client)
    await sidecar.stop()
    assert [await probe(client, path) for path in ("/livez", "/readyz", "/healthz/app")] == [200, 200, 200]


async def test_a_pod_that_goes_is_not_ready_and_lets_its_sidecar_go_last(sidecar: FakeSidecar) -> None:
    service = Service(Settings(dapr_http_port=sidecar.port))
    transport = httpx2.ASGITransport(service.app)
    async with (
        service.app.router.lifespan_context(service.app),
        httpx2.AsyncClient(transport=transport, base_url="http://memory") as client,
    ):
        await until_ready(client)
        drain = asyncio.create_task(service.drain())
        await asyncio.sleep(0.1)
        assert [await probe(client, path) for path in ("/readyz", "/healthz/app")] == [503, 200]
        assert await probe(client, "/memories/junaid") == 200
        await drain
        assert await probe(client, "/healthz/app") == 503


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "none"),
        ("SUMMARY_QUIET_SECONDS", "0"),
        ("SUMMARY_QUIET_SECONDS", "3600"),
        ("SUMMARY_MAX_PER_SECOND", "-1"),
        ("TRANSCRIPT_RETENTION_SECONDS", "-1"),
        ("MODEL_PROVIDER", "clippy"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as stopped:
        main()
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert variable in told
    assert told.count("\n") == 1


def test_it_is_run_as_a_module() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "agent_memory_service"],
        env=os.environ | {"PORT": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("PORT: ")
