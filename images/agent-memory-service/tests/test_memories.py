"""What is known of a user, over HTTP."""

import asyncio
from typing import Any

import httpx2
import pytest
from agent_memory_service.documents import ATTEMPTS
from agent_memory_service.main import Service
from agent_memory_service.settings import Settings
from aiohttp import web
from support.serving import Start, serving
from support.sidecar import FakeSidecar, hang_up, keys_of, reads

JUNAID = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}

HOSTILE = [
    "%2e%2e",
    "%2E%2E",
    "a%7C%7Cb",
    "a" * 129,
    "-a",
    "_a",
    ".a",
    "%20",
    "a%20b",
    "a%00",
    "a%0A",
    "%C3%A9",
    "a*",
]
"""Ids as a client may put them into a path, and which never become a key."""


def keys(sidecar: FakeSidecar, store: str = "statestore") -> list[str]:
    """What is stored of users and sessions."""
    return [key for key in sidecar.state[store] if key != "due-processes"]


async def test_an_unknown_user_is_a_new_user(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/memories/junaid")
    assert answer.status_code == 200
    assert answer.json() == {
        "name": "junaid",
        "preferred_style": "casual",
        "user_summary": "junaid is a new user.",
    }


async def test_asking_for_an_unknown_user_stores_nothing(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await client.get("/memories/junaid")
    assert keys(sidecar) == []


async def test_an_initialised_memory_is_remembered(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/memories/junaid/initialize", json=JUNAID)
    assert answer.status_code == 200
    assert answer.json() == {"status": "success", "user_id": "junaid", "metadata": JUNAID}
    assert (await client.get("/memories/junaid")).json() == JUNAID


async def test_initialising_again_replaces_what_was_known(client: httpx2.AsyncClient) -> None:
    await client.post("/memories/junaid/initialize", json=JUNAID)
    other = {"name": "J", "preferred_style": "formal", "user_summary": "J likes films."}
    await client.post("/memories/junaid/initialize", json=other)
    assert (await client.get("/memories/junaid")).json() == other


async def test_users_who_initialise_at_once_all_succeed(client: httpx2.AsyncClient) -> None:
    bodies = [JUNAID | {"user_summary": f"Number {number}."} for number in range(8)]
    answers = await asyncio.gather(*(client.post("/memories/junaid/initialize", json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert (await client.get("/memories/junaid")).json() in bodies


async def test_a_memory_keeps_every_character(client: httpx2.AsyncClient) -> None:
    body = {"name": "Jünaid 🦊", "preferred_style": "“plain”", "user_summary": "<b>&\u2028\x01 likes\nbooks 🦊"}
    await client.post("/memories/junaid/initialize", json=body)
    assert (await client.get("/memories/junaid")).json() == body


async def test_the_longest_values_are_taken_and_space_around_them_is_not(client: httpx2.AsyncClient) -> None:
    body = {"name": f" {'n' * 128} ", "preferred_style": f"\t{'s' * 64}", "user_summary": f"{'🦊' * 2000}\n"}
    answer = await client.post("/memories/junaid/initialize", json=body)
    assert answer.json()["metadata"] == {field: value.strip() for field, value in body.items()}


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"name": ""}, "name", "at least 1 character"),
        ({"name": "  \t"}, "name", "at least 1 character"),
        ({"name": "n" * 129}, "name", "at most 128 characters"),
        ({"name": "two\nlines"}, "name", "one line"),
        ({"name": "nul\x00"}, "name", "one line"),
        ({"name": 7}, "name", "valid string"),
        ({"name": None}, "name", "valid string"),
        ({"preferred_style": " "}, "preferred_style", "at least 1 character"),
        ({"preferred_style": "s" * 65}, "preferred_style", "at most 64 characters"),
        ({"preferred_style": ["casual"]}, "preferred_style", "valid string"),
        ({"user_summary": "\n"}, "user_summary", "at least 1 character"),
        ({"user_summary": "u" * 2001}, "user_summary", "at most 2000 characters"),
    ],
)
async def test_a_wrong_value_is_a_problem_that_names_the_field(
    client: httpx2.AsyncClient, change: dict[str, Any], field: str, told: str
) -> None:
    answer = await client.post("/memories/junaid/initialize", json=JUNAID | change)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "/problems/invalid-field"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert told in problem["errors"][0]["detail"]
    assert field in problem["detail"]


async def test_every_missing_field_is_named(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/memories/junaid/initialize", json={})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["name", "preferred_style", "user_summary"]


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"", 422), (b"[]", 422), (b'"x"', 422), (b"\xff", 400)])
async def test_a_body_that_is_no_memory_is_a_problem(client: httpx2.AsyncClient, body: bytes, status: int) -> None:
    answer = await client.post(
        "/memories/junaid/initialize", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == answer.json()["status"] == status


async def test_a_body_that_is_too_large_is_a_413(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/memories/junaid/initialize", json=JUNAID | {"user_summary": "x" * 1_000_000})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("user_id", HOSTILE)
@pytest.mark.parametrize("path", ["/memories/{}", "/memories/{}/initialize", "/conversations/{}"])
async def test_a_hostile_id_never_becomes_a_key(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, path: str, user_id: str
) -> None:
    url = httpx2.URL("http://memory", raw_path=path.format(user_id).encode())
    method = "POST" if path.endswith("initialize") else "GET"
    answer = await client.request(method, url, json=JUNAID if method == "POST" else None)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 422
    assert problem["errors"][0]["field"] == ("session_id" if "conversations" in path else "user_id")
    assert keys(sidecar) == []
    assert all(request.endswith(("/due-processes", "/metadata")) for request in sidecar.requests if "GET" in request)


@pytest.mark.parametrize(
    "path", ["/memories/..", "/memories/../initialize", "/conversations/..", "/memories/a/../../b"]
)
async def test_dots_that_no_client_has_resolved_lead_nowhere(sidecar: FakeSidecar, path: str) -> None:
    service = Service(Settings(dapr_http_port=sidecar.port))
    async with serving(service.app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: memory\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert int(answer.split()[1]) in {404, 405, 422}
    assert b"application/problem+json" in answer
    assert keys(sidecar) == []
    assert all(request.endswith(("/due-processes", "/metadata")) for request in sidecar.requests if "GET" in request)


@pytest.mark.parametrize(
    "path", ["/memories/junaid", "/memories/junaid/sessions", "/conversations/s1", "/dead-letters"]
)
async def test_a_route_is_met_with_and_without_a_slash(client: httpx2.AsyncClient, path: str) -> None:
    without, with_slash = await client.get(path), await client.get(f"{path}/")
    assert (without.status_code, without.content) == (with_slash.status_code, with_slash.content)
    assert without.status_code == 200


async def test_with_an_app_token_no_spelling_of_a_path_delivers_an_event(start: Start) -> None:
    async with start(app_api_token="token-1") as client:
        for path in ("/conversations", "/conversations/", "/conversations%0A", "/conversation%73/", "/dead-letters/"):
            answer = await client.post(path, content=b"{}", headers={"Content-Type": "application/json"})
            assert answer.status_code in {401, 404}, path


@pytest.mark.parametrize("path", ["/memories/", "/memories/a/b", "/conversations//", "/nothing"])
async def test_a_path_that_is_not_there_is_a_problem(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(httpx2.URL("http://memory", raw_path=path.encode()))
    assert answer.status_code == answer.json()["status"] == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("user_id", ["a", "A9", "a" * 128, "a.b-c_d@e+f", "junaid@example.com"])
async def test_an_id_in_the_documented_set_is_taken(client: httpx2.AsyncClient, user_id: str) -> None:
    await client.post(f"/memories/{user_id}/initialize", json=JUNAID)
    assert (await client.get(f"/memories/{user_id}")).json() == JUNAID


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_sidecar_that_is_gone_is_a_503(client: httpx2.AsyncClient, sidecar: FakeSidecar, method: str) -> None:
    await sidecar.stop()
    path = "/memories/junaid" if method == "GET" else "/memories/junaid/initialize"
    answer = await client.request(method, path, json=JUNAID if method == "POST" else None)
    assert answer.status_code == answer.json()["status"] == 503
    assert answer.json()["type"] == "/problems/store-unavailable"
    assert answer.headers["retry-after"] == "1"


async def test_a_store_that_fails_is_a_503(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"errorCode": "ERR_STATE_GET", "message": "connection refused"}, status=500)

    sidecar.before = fail
    answer = await client.get("/memories/junaid")
    assert answer.status_code == 503
    assert "refused" not in answer.text


async def test_a_memory_that_others_keep_writing_is_a_503_in_the_end(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    writes: list[str] = []

    async def overtake(request: web.Request) -> web.Response | None:
        if not reads(request) and "memory-junaid" in await keys_of(request):
            writes.append("memory-junaid")
            return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": "possible etag mismatch"}, status=409)
        return None

    sidecar.before = overtake
    answer = await client.post("/memories/junaid/initialize", json=JUNAID)
    assert answer.status_code == 503
    assert writes == ["memory-junaid"] * ATTEMPTS


async def test_an_answer_that_is_lost_is_a_503_and_trying_again_helps(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    async def lose(request: web.Request) -> None:
        if not reads(request):
            hang_up(request)

    sidecar.after = lose
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 503
    sidecar.after = None
    assert (await client.post("/memories/junaid/initialize", json=JUNAID)).status_code == 200
    assert (await client.get("/memories/junaid")).json() == JUNAID


async def test_the_store_is_the_one_that_is_configured(start: Start, sidecar: FakeSidecar) -> None:
    async with start(state_store="other") as client:
        await client.post("/memories/junaid/initialize", json=JUNAID)
    assert keys(sidecar, "other") == ["memory-junaid"]
    assert list(sidecar.state["statestore"]) == []
