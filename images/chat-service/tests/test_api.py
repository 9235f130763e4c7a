"""The contract of chat-service over HTTP: the whole service, a sidecar in memory, the offline model behind it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from aiohttp import web
from daca_common.logs import pseudonym
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from support.chat import STREAM, Pod, Start
from support.sidecar import hang_up
from support.sse import events


@pytest.fixture
def make(start: Start) -> Callable[..., Awaitable[Pod]]:
    """Starts a chat-service with the settings given."""

    async def made(**settings: Any) -> Pod:
        return (await start(**settings))[0]

    return made


@pytest.fixture
async def world(pod: Pod) -> Pod:
    return pod


def problem(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["detail"]
    return found


def fields(answer: httpx2.Response) -> list[str]:
    return [error["field"] for error in problem(answer)["errors"]]


async def test_the_root_says_welcome(world: Pod):
    assert "Welcome" in (await world.client.get("/")).json()["message"]


async def test_the_tutorials_conversation_remembers_what_was_said(world: Pod):
    first = await world.say("Hi there")
    assert first.status_code == 200
    assert "Junaid" in first.json()["reply"]
    second = (await world.say("What did I say before?")).json()
    assert "Hi there" in second["reply"]
    assert second["user_id"] == "junaid"
    assert set(second["metadata"]) == {"session_id", "timestamp"}
    assert second["sequence"] == 2


async def test_a_session_id_is_kept_and_a_new_one_made_where_none_is_given(world: Pod):
    named = await world.say("hi", body={"metadata": {"session_id": "s-1", "timestamp": "2026-01-01T00:00:00Z"}})
    assert named.json()["metadata"]["session_id"] == "s-1"
    new = [(await world.say("hi", body={"metadata": given, "tags": ["a"]})).json() for given in (None, {})]
    assert len({item["metadata"]["session_id"] for item in new}) == 2


async def test_a_turn_is_published_with_everything_a_consumer_needs(world: Pod):
    reply = (await world.say("Hi there", body={"metadata": {"session_id": "s-1"}})).json()
    for _ in range(100):
        if world.sidecar.published:
            break
        await asyncio.sleep(0.01)
    ((pubsub, topic, event),) = world.sidecar.published
    assert (pubsub, topic) == ("pubsub", "conversations")
    data = event["data"]
    assert data == {
        "event_type": "ConversationUpdated",
        "event_id": event["id"],
        "turn_id": reply["turn_id"],
        "sequence": 1,
        "occurred_at": reply["metadata"]["timestamp"],
        "user_id": "junaid",
        "session_id": "s-1",
        "user_message": "Hi there",
        "assistant_reply": reply["reply"],
    }


async def test_a_retry_under_the_same_idempotency_key_gets_the_same_bytes(world: Pod):
    first = await world.say("hi", headers={"Idempotency-Key": "key-1"})
    again = await world.say("hi", headers={"Idempotency-Key": "key-1"})
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert world.history() == ["hi"]


async def test_a_key_that_was_used_for_another_message_is_refused(world: Pod):
    await world.say("hi", headers={"Idempotency-Key": "key-1"})
    other = await world.say("something else", headers={"Idempotency-Key": "key-1"})
    assert other.status_code == 422
    assert fields(other) == ["Idempotency-Key"]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u2003"])
async def test_blank_text_is_refused_as_in_the_tutorial(world: Pod, text: str):
    answer = await world.say(text)
    assert answer.status_code == 400
    assert problem(answer)["detail"] == "Message text cannot be empty"
    assert fields(answer) == ["text"]


HOSTILE = ["", ".", "..", "../x", "a/b", "a||b", "a b", "-a", "ä", "a\n", "x" * 129, "%2e%2e", "a\u0000b"]


async def test_a_user_id_that_is_no_id_is_refused_before_it_becomes_a_key(world: Pod):
    for user_id in [*HOSTILE, None, 5, ["a"]]:
        answer = await world.say("hi", user_id=user_id)
        assert (answer.status_code, fields(answer)) == (422, ["user_id"]), user_id
    assert not any("UserSessionActor" in request for request in world.sidecar.requests)


async def test_a_session_id_that_is_no_id_is_refused(world: Pod):
    for session_id in HOSTILE:
        answer = await world.say("hi", body={"metadata": {"session_id": session_id}})
        assert (answer.status_code, fields(answer)) == (422, ["metadata.session_id"]), session_id


async def test_an_idempotency_key_that_is_no_id_is_refused(world: Pod):
    answer = await world.say("hi", headers={"Idempotency-Key": "a/b"})
    assert (answer.status_code, fields(answer)) == (422, ["Idempotency-Key"])


@pytest.mark.parametrize("user_id", ["a", "junaid@example.com", "A.b_c-d+e@1", "x" * 128, "0"])
async def test_ids_of_the_documented_set_are_taken(world: Pod, user_id: str):
    world.sidecar.services.clear()
    assert (await world.say("hi", user_id=user_id)).status_code == 200
    assert world.history(user_id) == ["hi"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": "hi"}, "user_id"),
        ({"user_id": "junaid"}, "text"),
        ({"user_id": "junaid", "text": 5}, "text"),
        ({"user_id": "junaid", "text": None}, "text"),
        ({"user_id": "junaid", "text": "hi", "metadata": "x"}, "metadata"),
        ({"user_id": "junaid", "text": "hi", "metadata": {"timestamp": "yesterday"}}, "metadata.timestamp"),
        ({"user_id": "junaid", "text": "hi", "tags": "x"}, "tags"),
        ([], "body"),
    ],
)
async def test_a_wrong_type_is_a_422_that_names_the_field(world: Pod, body: Any, field: str):
    answer = await world.client.post("/chat/", json=body)
    assert (answer.status_code, fields(answer)) == (422, [field])


@pytest.mark.parametrize("content", [b"{", b"", b'{"user_id": "junaid", "text": "\\ud800"}', b"\xff\xfe"])
async def test_a_body_that_is_no_json_is_refused(world: Pod, content: bytes):
    answer = await world.client.post("/chat/", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 422}
    assert problem(answer)


LARGEST = 'aÄ漢😀\u2028"\\\u0007' * 12_500


@pytest.mark.parametrize("text", ["5m", "2025-04-09 and so on", "10:30", "null", "<b>&\u2028", " x\n", LARGEST])
async def test_text_survives_byte_for_byte(world: Pod, text: str):
    answer = await world.say(text)
    assert answer.status_code == 200
    assert world.history() == [text]
    escaped = json.dumps({"user_id": "junaid", "text": text}, ensure_ascii=True).encode()
    answer = await world.client.post("/chat/", content=escaped, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert world.history() == [text, text]


async def test_a_text_that_is_too_long_and_a_body_that_is_too_large_are_413(world: Pod):
    too_long = await world.say("x" * 100_001)
    assert (too_long.status_code, fields(too_long)) == (413, ["text"])
    megabyte = await world.say("x" * 1_000_000)
    assert (megabyte.status_code, fields(megabyte)) == (413, ["text"])
    declared = await world.say("x" * 3_000_000)
    assert declared.status_code == 413
    assert problem(declared)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100_000

    undeclared = await world.client.post("/chat/", content=chunks(), headers={"Content-Type": "application/json"})
    assert undeclared.status_code == 413
    assert problem(undeclared)
    assert world.history() == []


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(world: Pod):
    assert problem(await world.client.get("/nothing"))["status"] == 404
    assert problem(await world.client.put("/chat/"))["status"] == 405


async def test_a_stream_ends_with_what_the_plain_route_would_have_answered(world: Pod):
    answer = await world.say("Hi there", headers={"Accept": "text/event-stream", "Idempotency-Key": "key-1"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [event.split("\n") for event in answer.text.strip().split("\n\n")]
    names = [event[0].removeprefix("event: ") for event in events]
    data = [json.loads(event[1].removeprefix("data: ")) for event in events]
    assert set(names[:-1]) == {"token"}
    assert names[-1] == "message"
    assert "".join(item["text"] for item in data[:-1]) == data[-1]["reply"]
    plain = await world.say("Hi there", headers={"Idempotency-Key": "key-1"})
    assert plain.json() == data[-1]


async def test_a_stream_that_fails_ends_with_the_problem(make):
    world = await make(model_base_url="http://127.0.0.1:1/v1")
    answer = await world.say("Hi there", headers={"Accept": "text/event-stream"})
    (last,) = events(answer.text.split("\n"))
    assert (last.kind, last.data["status"]) == ("error", 503)
    assert world.history() == []


async def test_clearing_the_history_forgets_the_conversation(world: Pod):
    await world.say("Hi there")
    cleared = await world.client.delete("/chat/junaid/history")
    assert (cleared.status_code, cleared.json()) == (200, {"status": "success", "user_id": "junaid"})
    assert "Hi there" not in (await world.say("What did I say before?")).json()["reply"]
    assert (await world.client.delete("/chat/a%7C%7Cb/history")).status_code == 422


async def test_pages_of_the_allowed_origins_may_call_and_others_may_not(make):
    world = await make(cors_origins=("http://localhost:3000",))

    async def allowed(origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return (await world.client.options("/chat/", headers=headers)).headers.get("access-control-allow-origin")

    assert await allowed("http://localhost:3000") == "http://localhost:3000"
    assert await allowed("http://evil.example") is None


async def test_a_turn_goes_on_without_the_memory_service(world: Pod):
    world.sidecar.services.clear()
    answer = await world.say("Hi there")
    assert answer.status_code == 200
    assert "junaid" in answer.json()["reply"]


async def test_without_a_model_key_the_answer_is_a_clear_503_until_the_secret_is_made(make):
    world = await make(model_provider="openai", model_secret_name="model-key", model_secret_key="key")
    answer = await world.say("Hi there")
    assert answer.status_code == 503
    assert "'model-key'" in problem(answer)["detail"]
    assert (await world.client.get("/readyz")).status_code == 200
    world.sidecar.secrets["model-key"] = {"key": "sk-test"}
    assert (await world.say("Hi there")).status_code == 200
    assert world.history() == ["Hi there"]


async def test_a_store_that_hangs_up_after_a_write_does_not_make_a_turn_happen_twice(world: Pod):
    hung_up = []

    async def lose_one_answer(request: web.Request) -> None:
        if request.method == "PUT" and request.path.endswith("/state") and not hung_up:
            hung_up.append(request.path)
            hang_up(request)

    world.sidecar.after = lose_one_answer
    answer = await world.say("Hi there")
    assert answer.status_code == 200
    assert hung_up
    assert world.history() == ["Hi there"]


async def test_a_sidecar_that_is_down_is_a_503(make):
    world = await make(turn_wait_seconds=0.2)
    await world.sidecar.stop()
    answer = await world.say("Hi there")
    assert answer.status_code == 503
    assert "Nothing was stored" in problem(answer)["detail"]


async def test_thirty_messages_at_once_are_answered_in_order_and_published_once(world: Pod):
    answers = await asyncio.gather(*(world.say(f"m{number}") for number in range(30)))
    assert [item.status_code for item in answers] == [200] * 30
    assert sorted(item.json()["sequence"] for item in answers) == list(range(1, 31))
    for _ in range(200):
        if len(world.sidecar.published) >= 30:
            break
        await asyncio.sleep(0.02)
    assert [event["data"]["sequence"] for _, _, event in world.sidecar.published] == list(range(1, 31))


async def test_the_actor_tells_the_tutorials_history_and_names_its_host(world: Pod):
    await world.say("Hi there")
    url = f"http://127.0.0.1:{world.sidecar.port}/v1.0/actors/UserSessionActor/junaid/method"
    async with httpx2.AsyncClient() as client:
        history = (await client.post(f"{url}/GetConversationHistory", json={})).json()
        assert [item["user_text"] for item in history] == ["Hi there"]
        added = (await client.post(f"{url}/AddMessage", json={"user_text": "5m", "reply_text": "2025-01-01"})).json()
        assert (added["status"], added["host"]) == ("committed", "pod-a")
        history = (await client.post(f"{url}/GetConversationHistory", json={})).json()
        assert [(item["user_text"], item["reply_text"]) for item in history[1:]] == [("5m", "2025-01-01")]
        invalid = (await client.post(f"{url}/AddMessage", json={"user_text": "a", "text": "b"})).json()
        assert invalid["status"] == "invalid"
        assert sorted(item["field"] for item in invalid["errors"]) == ["reply_text", "text"]


async def test_with_an_app_token_only_the_sidecar_may_call_actors(make):
    world = await make(app_api_token="token-1")
    world.sidecar.backend.active["UserSessionActor", "junaid"] = world.sidecar
    path = "/actors/UserSessionActor/junaid/method/GetConversationHistory"
    for headers in ({}, {"dapr-api-token": "another"}):
        assert problem(await world.client.put(path, json={}, headers=headers))["status"] == 401
    assert (await world.client.put(path, json={}, headers={"dapr-api-token": "token-1"})).status_code == 200
    assert problem(await world.client.get("/dapr/config"))["status"] == 401
    assert (await world.client.get("/")).status_code == 200


async def test_the_sidecar_is_told_of_the_actor_type_and_its_settings(make):
    world = await make(
        actor_idle_timeout_seconds=90, actor_drain_timeout_ms=200, actor_drain_rebalanced=False, actor_reentrancy=True
    )
    told = (await world.client.get("/dapr/config")).json()
    assert (told["drainOngoingCallTimeout"], told["drainRebalancedActors"]) == ("0h0m0s200ms0μs", False)
    (actor_type,) = told["entitiesConfig"]
    assert actor_type == actor_type | {
        "entities": ["UserSessionActor"],
        "actorIdleTimeout": "0h1m30s0ms0μs",
        "drainOngoingCallTimeout": "0h0m0s200ms0μs",
        "drainRebalancedActors": False,
    }
    assert actor_type["reentrancy"]["enabled"] is True


async def test_readiness_latches_once_the_actor_type_is_registered(make):
    world = await make()
    assert (await world.client.get("/livez")).status_code == 200
    for _ in range(100):
        if (await world.client.get("/readyz")).status_code == 200:
            break
        await asyncio.sleep(0.02)
    world.sidecar.actor_types = ()
    await asyncio.sleep(0.3)
    assert (await world.client.get("/readyz")).status_code == 200


async def test_a_pod_that_is_not_registered_is_alive_but_not_ready(make):
    world = await make()
    for _ in range(100):
        if world.service.health.ready:
            break
        await asyncio.sleep(0.02)
    world.service.health.ready = False
    assert (await world.client.get("/livez")).status_code == 200
    assert (await world.client.get("/readyz")).status_code == 503


async def test_a_draining_pod_refuses_new_turns_and_tells_its_sidecar_when_it_is_done(world: Pod):
    await world.say("Hi there")
    draining = asyncio.create_task(world.service.drain())
    await asyncio.sleep(0.05)
    refused = await world.say("And now?")
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert (await world.client.get("/readyz")).status_code == 503
    for _ in range(200):
        if (await world.client.get("/healthz/app")).status_code == 503:
            break
        await asyncio.sleep(0.02)
    assert [event["data"]["user_message"] for _, _, event in world.sidecar.published] == ["Hi there"]
    await world.sidecar.stop()
    await asyncio.wait_for(draining, 2)


async def test_a_request_leaves_one_line_without_text_or_user_id(world: Pod, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO"):
        metadata = {"session_id": "session-1"}
        await world.say("a secret thing", body={"metadata": metadata}, headers={"Idempotency-Key": "key-of-junaid"})
    # The offline model and the test's client log into the same place here.
    ours = [record for record in caplog.records if record.name not in {"httpx2", "uvicorn.access"}]
    (line,) = [record for record in ours if getattr(record, "route", "") == "/chat/"]
    logged = vars(line)
    ids = {"user": pseudonym("junaid"), "session": "session-1", "turn": pseudonym("key-of-junaid")}
    assert logged == logged | {"method": "POST", "status": 200} | ids
    assert len(logged["trace_id"]) == 32
    everything = " ".join(str(vars(record)) for record in ours)
    assert "secret thing" not in everything
    assert "junaid" not in everything


async def cut(request: Request) -> Response:
    """A model whose every reply is cut, whole or in a stream."""
    if (await request.json()).get("stream"):
        choices = [{"index": 0, "delta": {"content": "Once upon"}, "finish_reason": "length"}]
        return Response(f"data: {json.dumps({'choices': choices})}\n\ndata: [DONE]\n\n", media_type="text/event-stream")
    message = {"role": "assistant", "content": "Once upon"}
    return JSONResponse({"choices": [{"index": 0, "message": message, "finish_reason": "length"}]})


CUTTING = Starlette(routes=[Route("/v1/chat/completions", cut, methods=["POST"])])


async def test_that_a_reply_was_cut_is_told_wherever_it_is(start: Start):
    first, second = await start(2, CUTTING)  # one relays to the other, or calls its actor
    told = (await first.say("Tell me a story", key="k1")).json()
    assert (told["reply"], told["finish_reason"]) == ("Once upon", "length")
    streamed = await second.say("And another", key="k2", headers=STREAM)
    assert list(events(streamed.text.splitlines()))[-1].data["finish_reason"] == "length"
    for number in range(12):  # the first leaves the window, and its receipt is stored apart
        await first.say(f"More {number}")
    for pod in (first, second):
        replayed = await pod.say("Tell me a story", key="k1")
        assert replayed.headers["Idempotency-Replayed"] == "true"
        assert replayed.json() == told
        state = (await pod.client.get("/chat/junaid/turns/k1")).json()
        assert state["reply"]["finish_reason"] == "length"
        resumed = await pod.client.get("/chat/junaid/turns/k1/events")
        assert list(events(resumed.text.splitlines()))[-1].data["finish_reason"] == "length"


async def test_a_whole_reply_says_nothing_of_it(world: Pod):
    assert "finish_reason" not in (await world.say("Hi there", key="k1")).json()
    assert "finish_reason" not in (await world.client.get("/chat/junaid/turns/k1/events")).text


async def test_a_reply_that_was_cut_is_refused_by_setting(start: Start):
    (pod,) = await start(1, CUTTING, model_on_length="refuse")
    refused = await pod.say("Tell me a story")
    assert (refused.status_code, problem(refused)["type"]) == (502, "/problems/model-reply-cut")
    streamed = list(events((await pod.say("Tell me a story", headers=STREAM)).text.splitlines()))
    assert [event.kind for event in streamed] == ["token", "error"]
    assert streamed[-1].data["type"] == "/problems/model-reply-cut"
    assert pod.history() == []
