"""Errors as problem+json, whoever raises them; and the bound on bodies."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from daca_common import problems
from daca_common.problems import BodyLimit, Problem, limited_body
from fastapi import FastAPI, Request
from pydantic import BaseModel

LIMIT = 1000


class Inner(BaseModel):
    number: int


class Body(BaseModel):
    name: str
    inner: Inner | None = None


def app() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.post("/body")
    async def body(body: Body) -> Body:
        return body

    @app.post("/internal/raw")
    async def raw(request: Request) -> int | None:
        body = await limited_body(request, 2 * LIMIT)
        return None if body is None else len(body)

    @app.get("/problem")
    async def problem() -> None:
        raise Problem(
            409,
            "Taken.",
            kind="/problems/taken",
            errors=[{"field": "name", "detail": "is taken"}],
            headers={"X-A": "b"},
        )

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("the reason stays in the log")

    app.add_middleware(BodyLimit, limit=LIMIT, exempt="/internal/")
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app(), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_problem_is_sent_as_it_was_raised(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/problem")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-a"] == "b"
    assert answer.json() == {
        "type": "/problems/taken",
        "title": "Conflict",
        "status": 409,
        "detail": "Taken.",
        "errors": [{"field": "name", "detail": "is taken"}],
    }


async def test_a_wrong_field_is_named_by_its_path(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/body", json={"inner": {"number": "many"}})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["name", "inner.number"]


async def test_what_is_not_json_is_a_400(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/body", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-json")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/body", 405)])
async def test_the_routers_errors_are_problems(client: httpx2.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_bug_is_a_500_that_tells_nothing(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/bug")
    assert answer.status_code == answer.json()["status"] == 500
    assert "reason" not in answer.text


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    yield b'{"name": "'
    for _ in range(size // 100):
        yield b"x" * 100
    yield b'"}'


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_a_413(client: httpx2.AsyncClient, chunked: bool) -> None:
    content = in_chunks(2 * LIMIT) if chunked else b"".join([chunk async for chunk in in_chunks(2 * LIMIT)])
    answer = await client.post("/body", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == answer.json()["status"] == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "1,000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_within_the_limit_is_read(client: httpx2.AsyncClient, chunked: bool) -> None:
    content = in_chunks(LIMIT - 100) if chunked else b"".join([chunk async for chunk in in_chunks(LIMIT - 100)])
    answer = await client.post("/body", content=content, headers={"content-type": "application/json"})
    assert answer.json()["name"] == "x" * (LIMIT - 100)


@pytest.mark.parametrize(("size", "seen"), [(0, 0), (2 * LIMIT, 2 * LIMIT), (2 * LIMIT + 1, None)])
async def test_an_exempt_path_has_a_limit_of_its_own(client: httpx2.AsyncClient, size: int, seen: int | None) -> None:
    answer = await client.post("/internal/raw", content=b"x" * size)
    assert answer.json() == seen
