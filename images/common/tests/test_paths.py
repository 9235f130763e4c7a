"""One spelling of each path, for guards and routes alike."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from daca_common import problems
from daca_common.app_token import SidecarOnly
from daca_common.ids import Id
from daca_common.paths import OneSpelling
from fastapi import FastAPI


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    app = FastAPI(redirect_slashes=False)
    problems.install(app)

    @app.get("/")
    async def root() -> str:
        return "root"

    @app.post("/chat/")
    async def chat() -> str:
        return "chat"

    @app.post("/events")
    async def event() -> str:
        return "event"

    @app.get("/users/{user_id}")
    async def user(user_id: Id) -> str:
        return user_id

    @app.delete("/users/{user_id}/history")
    async def clear(user_id: Id) -> str:
        return f"cleared {user_id}"

    app.add_middleware(SidecarOnly, token="token-1", paths=("POST /events", "/actors/"))
    app.add_middleware(OneSpelling)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/chat/"),
        ("POST", "/chat"),
        ("GET", "/users/a"),
        ("GET", "/users/a/"),
        ("DELETE", "/users/a/history/"),
        ("GET", "/"),
        ("GET", "/openapi.json/"),
        ("GET", "/users/a%40b/"),
    ],
)
async def test_a_route_is_met_with_and_without_a_slash_and_nothing_redirects(
    client: httpx2.AsyncClient, method: str, path: str
) -> None:
    headers = {"Host": "chat.example.org", "X-Forwarded-Proto": "https"}
    assert (await client.request(method, path, headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/users/a%2Fb", "/users/a%2f", "/users/a%0A", "/users/%00", "/users/%FF", "/users/%"])
async def test_what_is_encoded_in_an_id_is_part_of_it_and_refused_by_name(
    client: httpx2.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "user_id")


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/users/a%2Fhistory"), ("DELETE", "/users/a/history%0A"), ("POST", "/chat//"), ("GET", "/users/")],
)
async def test_what_only_looks_like_a_route_is_none(client: httpx2.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code in {404, 405}


@pytest.mark.parametrize(
    "path", ["/events", "/events/", "/events%0A", "/events%2F", "/%65vents", "/%65vents/", "/actors/a/", "/actors%2Fa"]
)
async def test_no_spelling_gets_past_a_guard(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.post(path)).status_code in {401, 404}


async def test_the_guard_lets_the_sidecar_pass(client: httpx2.AsyncClient) -> None:
    for path in ("/events", "/events/"):
        assert (await client.post(path, headers={"dapr-api-token": "token-1"})).json() == "event"


async def test_head_is_answered_as_get(client: httpx2.AsyncClient) -> None:
    assert (await client.head("/users/a")).status_code == 200
    assert (await client.head("/chat/")).status_code == 405
