"""Events that could not be handled, over HTTP: kept once as they came, listed without words, replayed, deleted."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from agent_memory_service import dead_letters
from agent_memory_service.events import MAX_EVENT
from aiohttp import web
from support.events import conversation_updated
from support.serving import Start
from support.sidecar import FakeSidecar, keys_of, reads


async def die(client: httpx2.AsyncClient, event: Any) -> str:
    """Delivers an event as the sidecar does when the retries are used up."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    answer = await client.post("/dead-letters", content=body, headers={"content-type": "application/cloudevents+json"})
    assert answer.status_code == 200
    return str(answer.json()["status"])


async def letters(client: httpx2.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await client.get("/dead-letters", params=query)
    assert answer.status_code == 200
    return list(answer.json()["dead_letters"])


async def history(client: httpx2.AsyncClient) -> list[str]:
    return [entry["content"] for entry in (await client.get("/conversations/s1")).json()["history"]]


async def test_there_are_none_at_first(client: httpx2.AsyncClient) -> None:
    assert await letters(client) == []


async def test_an_event_is_listed_without_its_words_and_read_as_it_came(client: httpx2.AsyncClient) -> None:
    event = conversation_updated(7, user_message="a secret") | {"traceid": "x"}
    body = json.dumps(event, indent=3).encode()
    assert await die(client, body) == "SUCCESS"
    (letter,) = await letters(client)
    assert {name: letter[name] for name in ("user_id", "session_id", "sequence", "bytes")} == {
        "user_id": "junaid",
        "session_id": "s1",
        "sequence": 7,
        "bytes": len(body),
    }
    assert "retries" in letter["reason"]
    assert "secret" not in str(letter)
    answer = (await client.get(f"/dead-letters/{letter['id']}")).json()
    assert answer == {"dead_letter": letter, "body": body.decode()}


async def test_an_event_that_comes_again_is_kept_once_whatever_the_sidecar_put_into_its_envelope(
    client: httpx2.AsyncClient,
) -> None:
    event = conversation_updated()
    await asyncio.gather(*(die(client, event | {"traceparent": f"00-{number}"}) for number in range(5)))
    await die(client, dict(reversed(event.items())))
    assert len(await letters(client)) == 1


@pytest.mark.parametrize(
    ("event", "reason", "user_id"),
    [
        (b"not JSON \xff", "Invalid JSON", None),
        ({"data": {"user_id": "junaid", "sequence": "one"}}, "data.event_type: Field required", "junaid"),
        ({"data": {"user_id": "../x"}}, "data.user_id", None),
        ({"data": "text"}, "data", None),
        ([], "body", None),
        (b"[" * 5000, "Invalid JSON", None),
        ({"data": {"user_id": ["x"], "a": 10**40}}, "data.user_id", None),
        ({"data": {"user_id": "junaid", "sequence": 10**40}}, "data.sequence", "junaid"),
        ({"data": {"user_id": "junaid", "sequence": True}}, "data.sequence", "junaid"),
    ],
)
async def test_what_is_malformed_is_kept_with_the_reason_and_stays_so(
    client: httpx2.AsyncClient, event: Any, reason: str, user_id: str | None
) -> None:
    for _ in range(2):
        assert await die(client, event) == "SUCCESS"
    (letter,) = await letters(client)
    assert reason in letter["reason"]
    assert (letter["user_id"], letter["sequence"]) == (user_id, None)
    answer = await client.post(f"/dead-letters/{letter['id']}/replay")
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/malformed-event"
    assert len(await letters(client)) == 1


async def test_of_what_is_too_large_the_beginning_is_kept(client: httpx2.AsyncClient) -> None:
    assert await die(client, conversation_updated(user_message="x" * 3 * MAX_EVENT)) == "SUCCESS"
    (letter,) = await letters(client)
    assert letter["bytes"] == dead_letters.HEAD
    assert "larger than" in letter["reason"]
    assert len((await client.get(f"/dead-letters/{letter['id']}")).json()["body"]) == dead_letters.HEAD


async def test_the_largest_event_is_kept_whole_and_can_be_replayed(client: httpx2.AsyncClient) -> None:
    event = conversation_updated(user_message="x" * (MAX_EVENT - 1000))
    await die(client, event)
    (letter,) = await letters(client)
    assert (await client.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
    assert len((await history(client))[0]) == MAX_EVENT - 1000


async def test_a_replayed_event_is_in_the_transcript_once_and_no_dead_letter_any_more(
    client: httpx2.AsyncClient, sidecar: FakeSidecar
) -> None:
    await client.post("/conversations", json=conversation_updated(1))
    for number in (1, 2):
        await die(client, conversation_updated(number))
    for letter in await letters(client):
        answer = await client.post(f"/dead-letters/{letter['id']}/replay")
        assert (answer.status_code, answer.json()) == (200, {"status": "success", "id": letter["id"]})
    assert await letters(client) == []
    assert await history(client) == ["message 1", "reply 1", "message 2", "reply 2"]
    assert not [key for key in sidecar.state["statestore"] if key.startswith("dead-letter-")]


async def test_an_event_that_still_cannot_be_stored_stays(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await die(client, conversation_updated())
    (letter,) = await letters(client)

    async def fail(request: web.Request) -> web.Response | None:
        if reads(request) and any(key.startswith("turns-") for key in await keys_of(request)):
            return web.json_response({"errorCode": "ERR_STATE_GET", "message": "no"}, status=500)
        return None

    sidecar.before = fail
    answer = await client.post(f"/dead-letters/{letter['id']}/replay")
    assert answer.status_code == 503
    assert len(await letters(client)) == 1


async def test_one_can_be_deleted_once(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await die(client, conversation_updated())
    (letter,) = await letters(client)
    path = f"/dead-letters/{letter['id']}"
    assert [(await client.delete(path)).status_code for _ in range(2)] == [200, 404]
    assert (await client.get(path)).status_code == (await client.post(f"{path}/replay")).status_code == 404
    assert not [key for key in sidecar.state["statestore"] if key.startswith("dead-letter-")]


@pytest.mark.parametrize(
    ("path", "field"),
    [("/dead-letters/..%2fx", "letter_id"), ("/dead-letters/ABC", "letter_id"), ("/dead-letters?limit=0", "limit")],
)
async def test_a_wrong_value_names_its_field(client: httpx2.AsyncClient, path: str, field: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_the_newest_are_kept_and_listed_first(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "NEWEST", 5)
    for number in range(1, 9):
        await die(client, conversation_updated(number))
    assert [letter["sequence"] for letter in await letters(client)] == [8, 7, 6, 5, 4]
    assert [letter["sequence"] for letter in await letters(client, limit=2)] == [8, 7]
    monkeypatch.setattr(dead_letters, "NEWEST_BYTES", 3000)
    await die(client, conversation_updated(9, user_message="x" * 2000))
    assert [letter["sequence"] for letter in await letters(client)] == [9, 8]
    assert len([key for key in sidecar.state["statestore"] if key.startswith("dead-letter-")]) == 2


async def test_pods_that_add_at_once_lose_none(client: httpx2.AsyncClient, start: Start) -> None:
    async with start() as other:
        pods = (client, other)
        statuses = await asyncio.gather(*(die(pods[n % 2], conversation_updated(n + 1)) for n in range(12)))
    assert statuses == ["SUCCESS"] * 12
    assert len(await letters(client)) == 12


async def test_one_is_delivered_again_when_the_store_is_gone(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await sidecar.stop()
    assert await die(client, conversation_updated()) == "RETRY"


async def test_with_a_token_only_the_sidecar_delivers_them_and_all_may_read(start: Start) -> None:
    async with start(app_api_token="right") as client:
        assert (await client.post("/dead-letters", json=conversation_updated())).status_code == 401
        right = {"dapr-api-token": "right"}
        assert (await client.post("/dead-letters", json=conversation_updated(), headers=right)).status_code == 200
        assert len(await letters(client)) == 1


async def test_what_a_later_release_put_into_the_list_stays(client: httpx2.AsyncClient, sidecar: FakeSidecar) -> None:
    await die(client, conversation_updated(1))
    state = sidecar.state["statestore"]
    listed = state.get("dead-letters")
    listed |= {"tomorrow": 1, "letters": [listed["letters"][0] | {"mood": "sunny"}]}
    state.set("dead-letters", listed, state.etag("dead-letters"))
    await die(client, conversation_updated(2))
    assert state.get("dead-letters")["tomorrow"] == 1
    assert state.get("dead-letters")["letters"][0]["mood"] == "sunny"
