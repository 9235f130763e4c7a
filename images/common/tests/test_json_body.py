"""JSON bodies: what is wrong with one is said before any field is looked at."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from daca_common import problems
from daca_common.json_body import JsonRoute
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

JSON = {"Content-Type": "application/json"}


class Inner(BaseModel):
    words: list[str] = []


class Body(BaseModel):
    name: str
    number: float = 0
    inner: Inner | None = None


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app, api = FastAPI(), APIRouter(route_class=JsonRoute)
    problems.install(app)

    @api.post("/body")
    async def body(body: Body) -> Body:
        return body

    @api.post("/none")
    async def none() -> str:
        return "done"

    app.include_router(api)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        yield client


TEXT = json.dumps({"name": "Grüße 😀"}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (TEXT.encode(), "application/json"),
        (TEXT.encode(), "Application/JSON ; charset=utf-8"),
        (TEXT.encode(), "application/vnd.api+json"),
        (TEXT.encode("utf-8-sig"), "application/json"),
        (json.dumps({"name": "Grüße 😀"}).encode(), "application/json"),
    ],
)
async def test_json_in_utf8_is_taken(client: httpx2.AsyncClient, content: bytes, content_type: str) -> None:
    answer = await client.post("/body", content=content, headers={"Content-Type": content_type})
    assert answer.json()["name"] == "Grüße 😀"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "line 1, column 2"),
        (b"{'name': 1}", "line 1, column 2"),
        (b'{"name": "a"} x', "column 15"),
        (TEXT.encode("utf-16"), "byte 0"),
        (TEXT.encode("utf-16-le"), "UTF-8"),
        (TEXT.encode("utf-32"), "byte 0"),
        (TEXT.encode("latin-1", "replace"), "UTF-8"),
        (b'{"name": "\xed\xa0\xbd"}', "UTF-8"),
        (b'{"name": "a\nb"}', "control character"),
        (b'{"name": "a", "number": NaN}', "NaN"),
        (b'{"name": "a", "number": -Infinity}', "-Infinity"),
        (b'{"name": "a", "number": ' + b"9" * 5000 + b"}", "digits"),
        (b"[" * 100_000, "nested"),
        (b'{"name": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "nested"),
        (b"\x00", "line 1"),
        (b"   ", "line 1"),
    ],
)
async def test_what_is_not_json_is_a_400_that_says_where(client: httpx2.AsyncClient, content: bytes, said: str) -> None:
    answer = await client.post("/body", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-json")
    assert said in answer.json()["detail"]
    assert [error["field"] for error in answer.json()["errors"]] == ["body"]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"name": "\\ud83d"}', "name"),
        (b'{"name": "\\ude00\\ud83d"}', "name"),
        (b'{"name": "a", "inner": {"words": ["b", "\\udc00"]}}', "inner.words.1"),
        (b'{"name": "a", "x\\ud83d": 1}', "x?"),
        (b'"\\ud83d"', "body"),
        (b'{"name": "a", "name": "a"}', "name"),
        (b'{"name": "a", "inner": {"words": [], "words": []}}', "inner.words"),
        (b'{"name": "a", "more": [{"b": 1, "\\u0062": 2}]}', "more.0.b"),
        (b'{"name": {"a": 1, "a": 2}, "name": "b"}', "name"),
        (b"null", "body"),
        (b"[]", "body"),
        (b"", "body"),
    ],
)
async def test_a_wrong_value_is_named_by_its_path(client: httpx2.AsyncClient, content: bytes, field: str) -> None:
    answer = await client.post("/body", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-field")
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({}, "Content-Type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "Content-Type"),
        ({"Content-Type": "text/plain"}, "Content-Type"),
        ({"Content-Type": "text/json+json"}, "Content-Type"),
        ({"Content-Type": ";;="}, "Content-Type"),
        (JSON | {"Content-Encoding": "gzip"}, "Content-Encoding"),
        (JSON | {"Content-Encoding": "br, identity"}, "Content-Encoding"),
    ],
)
async def test_what_is_not_sent_as_json_is_a_415(client: httpx2.AsyncClient, headers: Any, field: str) -> None:
    content = gzip.compress(TEXT.encode()) if "Content-Encoding" in headers else TEXT.encode()
    answer = await client.post("/body", content=content, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")
    assert [(error["field"], error["location"]) for error in answer.json()["errors"]] == [(field, "header")]


async def test_a_route_without_a_body_takes_any(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/none", content=b"{", headers={"Content-Type": "text/plain"})).json() == "done"
