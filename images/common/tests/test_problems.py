"""Errors as problem+json, whoever raises them; and the bound on bodies."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
import pytest
from daca_common import problems
from daca_common.problem_types import PROBLEM_TYPES
from daca_common.problems import BodyLimit, Problem, limited_body
from fastapi import FastAPI, Header, Request
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

LIMIT = 1000


class Inner(BaseModel):
    number: int


class Body(BaseModel):
    name: str
    inner: Inner | None = None


class Broken:
    """Middleware with a fault."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/broken":
            raise ZeroDivisionError("the reason stays in the log")
        await self._app(scope, receive, send)


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
            "Another is being answered.",
            kind="/problems/busy",
            errors=[{"field": "name", "location": "body", "detail": "is taken"}],
            headers={"X-A": "b"},
        )

    @app.get("/with/{item_id}")
    @app.delete("/with/{item_id}")
    async def nothing(item_id: int) -> int:
        return item_id

    @app.post("/with/{item_id}")
    async def something(
        item_id: int, limit: int, body: Body, last: Annotated[str, Header(alias="Last-Event-ID", max_length=8)]
    ) -> str:
        return f"{item_id} {limit} {body} {last}"

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("the reason stays in the log")

    app.add_middleware(BodyLimit, limit=LIMIT, exempt="/internal/")
    app.add_middleware(Broken)
    app.add_middleware(problems.Unexpected)
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
        "type": "/problems/busy",
        "title": "Another message is being answered",
        "status": 409,
        "detail": "Another is being answered.",
        "errors": [{"field": "name", "location": "body", "detail": "is taken"}],
    }


async def test_a_wrong_field_is_named_by_its_path(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/body", json={"inner": {"number": "many"}})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["name", "inner.number"]


async def test_a_wrong_field_is_told_with_where_it_is(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/with/a%20b?limit=x", json=[], headers={"Last-Event-ID": "x" * 9})
    assert [(error["field"], error["location"]) for error in answer.json()["errors"]] == [
        ("item_id", "path"),
        ("limit", "query"),
        ("Last-Event-ID", "header"),
        ("body", "body"),
    ]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/body", 405)])
async def test_the_routers_errors_are_problems(client: httpx2.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == {404: "/problems/not-found", 405: "/problems/method-not-allowed"}[status]


async def test_a_wrong_method_is_told_all_that_the_path_takes(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/with/1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, POST")
    assert "DELETE, GET, HEAD, POST" in answer.json()["detail"]


async def test_the_address_in_type_tells_what_it_means(client: httpx2.AsyncClient) -> None:
    problem = (await client.get("/problem")).json()
    entry = await client.get(problem["type"])
    assert entry.status_code == 200
    assert PROBLEM_TYPES["busy"].mend in entry.text
    assert entry.text in (await client.get("/problems")).text
    assert (await client.get("/problems/none-of-ours")).json()["type"] == "/problems/not-found"


async def test_a_bug_is_a_500_that_tells_nothing(client: httpx2.AsyncClient) -> None:
    for path in ("/bug", "/broken"):
        answer = await client.get(path)
        assert answer.status_code == answer.json()["status"] == 500
        assert answer.json()["type"] == "/problems/unexpected"
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
    assert answer.json()["type"] == "/problems/too-large"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_within_the_limit_is_read(client: httpx2.AsyncClient, chunked: bool) -> None:
    content = in_chunks(LIMIT - 100) if chunked else b"".join([chunk async for chunk in in_chunks(LIMIT - 100)])
    answer = await client.post("/body", content=content, headers={"content-type": "application/json"})
    assert answer.json()["name"] == "x" * (LIMIT - 100)


@pytest.mark.parametrize(("size", "seen"), [(0, 0), (2 * LIMIT, 2 * LIMIT), (2 * LIMIT + 1, None)])
async def test_an_exempt_path_has_a_limit_of_its_own(client: httpx2.AsyncClient, size: int, seen: int | None) -> None:
    answer = await client.post("/internal/raw", content=b"x" * size)
    assert answer.json() == seen
