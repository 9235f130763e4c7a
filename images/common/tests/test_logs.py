"""Logs: one JSON line a request that tells what happened, and neither who it was nor what was said."""

import json
import logging
from collections.abc import Iterator

import httpx2
import pytest
from daca_common import logs
from daca_common.logs import RequestLog, annotate, pseudonym, traceparent
from fastapi import FastAPI

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is of the process: what a test configures must not outlive it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = False


@pytest.fixture
def client() -> httpx2.AsyncClient:
    app = FastAPI()

    @app.get("/users/{user_id}")
    async def user(user_id: str) -> str | None:
        annotate(user=user_id)
        return traceparent.get()

    @app.get("/livez")
    async def livez() -> None: ...

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    app.add_middleware(RequestLog)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["logger"] == "access"]


async def test_a_request_is_one_line(client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    answer = await client.get("/users/junaid?text=secret", headers={"traceparent": PARENT})
    (line,) = lines(capsys)
    assert answer.json() == PARENT
    assert line.pop("duration_ms") is not None
    assert line.pop("time") is not None
    assert line == {
        "level": "INFO",
        "logger": "access",
        "message": "request",
        "method": "GET",
        "route": "/users/{user_id}",
        "status": 200,
        "trace_id": TRACE,
        "user": pseudonym("junaid"),
    }


async def test_a_request_without_a_trace_gets_one(
    client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO")
    parents = [(await client.get("/users/a", headers=headers)).json() for headers in ({}, {"traceparent": "junk"})]
    assert [parent.split("-")[1] for parent in parents] == [line["trace_id"] for line in lines(capsys)]
    assert len(set(parents)) == 2


async def test_a_path_that_is_not_there_is_not_logged_as_it_is(
    client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO")
    await client.get("/a/secret")
    assert [(line["route"], line["status"]) for line in lines(capsys)] == [("-", 404)]


async def test_a_bug_is_a_line_with_status_500(client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    await client.get("/bug")
    assert [line["status"] for line in lines(capsys)] == [500]


@pytest.mark.parametrize(("level", "logged"), [("INFO", 0), ("DEBUG", 1)])
async def test_probes_are_logged_at_debug_only(
    client: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str], level: str, logged: int
) -> None:
    logs.configure(level)
    await client.get("/livez")
    assert len(lines(capsys)) == logged


def test_one_user_has_one_hash_and_it_does_not_name_them() -> None:
    assert pseudonym("junaid") == pseudonym("junaid") != pseudonym("Junaid")
    assert len(pseudonym("junaid")) == 12
    assert "junaid" not in pseudonym("junaid")


def test_annotating_without_a_request_does_nothing() -> None:
    annotate(user="x")
    assert traceparent.get() is None
