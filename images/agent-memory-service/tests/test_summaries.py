"""The roll-up of what is known of a user: in the background, coalesced, bounded, never over a newer memory."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest
from agent_memory_service import summaries
from agent_memory_service.main import Service
from agent_memory_service.memories import MAX_SUMMARY
from agent_memory_service.settings import Settings
from aiohttp import web
from daca_common.conversation_updated import ConversationUpdated
from daca_common.health import Health
from offline_model.main import create_app
from offline_model.settings import Settings as OfflineSettings
from support.events import conversation_updated
from support.serving import Start, serving
from support.sidecar import FakeSidecar

JUNAID = {"name": "Junaid", "preferred_style": "casual", "user_summary": "Junaid likes books."}
QUICK = {"summary_quiet_seconds": 0.05, "summary_max_wait_seconds": 5, "summary_max_per_second": 200}


class Model:
    """A model that answers what a test wants; a number is a status."""

    def __init__(self) -> None:
        self.answer: str | int = "Junaid reads."
        self.asked: list[dict[str, str]] = []
        """The messages of each request, by role."""
        self.authorization = ""
        self.before: Callable[[], Awaitable[object]] | None = None
        self.odd: Callable[[], web.Response] | None = None
        self.url = ""

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.authorization = request.headers["Authorization"]
        self.asked.append({message["role"]: message["content"] for message in body["messages"]})
        if self.before is not None:
            await self.before()
        if self.odd is not None:
            return self.odd()
        if isinstance(self.answer, int):
            return web.json_response({"error": {"message": "no"}}, status=self.answer)
        message = {"role": "assistant", "content": self.answer}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        )


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    app = web.Application()
    app.router.add_post("/chat/completions", model.complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield model
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summaries, "FIRST_BACKOFF_SECONDS", 0.02)
    monkeypatch.setattr(summaries, "LONGEST_BACKOFF_SECONDS", 0.05)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if isinstance(met, Awaitable) else met:
                return
            await asyncio.sleep(0.01)


async def say(client: httpx2.AsyncClient, sequence: int, text: str, **more: Any) -> None:
    answer = await client.post("/conversations", json=conversation_updated(sequence, user_message=text, **more))
    assert answer.json() == {"status": "SUCCESS"}


async def summary(client: httpx2.AsyncClient, user_id: str = "junaid") -> str:
    return str((await client.get(f"/memories/{user_id}")).json()["user_summary"])


async def test_the_summary_keeps_what_is_known_and_tells_what_is_new(start: Start) -> None:
    async with (
        serving(create_app(OfflineSettings(), Health())) as url,
        start(**QUICK, model_base_url=f"{url}/v1") as client,
    ):
        await client.post("/memories/junaid/initialize", json=JUNAID)
        await say(client, 1, "Hi there")
        await say(client, 2, "I read Dune")

        async def told() -> bool:
            return await summary(client) == "Junaid likes books. Recent topics: Hi there; I read Dune."

        await until(told)
        assert (await client.get("/memories/junaid")).json()["name"] == "Junaid"


async def test_the_model_is_given_the_summary_and_the_new_messages(start: Start, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:
        await client.post("/memories/junaid/initialize", json=JUNAID)
        await say(client, 2, "And films?", assistant_reply="Films too.")
        await say(client, 1, "I read Dune")
        await until(lambda: bool(model.asked))
    assert model.asked[0]["system"].startswith("Summarise what is known of the user")
    assert model.asked[0]["user"] == (
        "Present summary: Junaid likes books.\nNew messages:\n"
        "User: I read Dune\nAssistant: reply 1\nUser: And films?\nAssistant: Films too."
    )


async def test_a_user_who_was_never_initialised_gets_a_summary_too(start: Start, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
        assert (await client.get("/memories/junaid")).json()["name"] == "junaid"


async def test_a_lively_conversation_costs_one_call(start: Start, model: Model) -> None:
    async with start(**QUICK | {"summary_quiet_seconds": 1}, model_base_url=model.url) as client:
        for number in range(1, 11):
            await say(client, number, f"text {number}")
            await asyncio.sleep(0.02)
        assert model.asked == []
        await until(lambda: bool(model.asked))
        await asyncio.sleep(1.2)
    assert len(model.asked) == 1
    assert model.asked[0]["user"].count("User: ") == summaries.EXCHANGES
    assert "text 10" in model.asked[0]["user"]


async def test_somebody_who_does_not_stop_talking_does_not_wait_for_ever(start: Start, model: Model) -> None:
    wait = {"summary_quiet_seconds": 0.2, "summary_max_wait_seconds": 0.5, "summary_max_per_second": 200}
    async with start(**wait, model_base_url=model.url) as client:
        began = time.monotonic()
        number = 0
        while not model.asked:
            number += 1
            await say(client, number, "more")
            await asyncio.sleep(0.02)
        assert time.monotonic() - began > 0.4


async def test_an_event_that_comes_again_is_not_summarised_again(start: Start, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: bool(model.asked))
        await say(client, 1, "Hi")
        await asyncio.sleep(0.3)
    assert len(model.asked) == 1


async def test_long_messages_are_shown_to_the_model_in_part(start: Start, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "x" * 100_000, assistant_reply="y" * 100_000)
        await until(lambda: bool(model.asked))
    assert len(model.asked[0]["user"]) < 1000


async def test_an_answer_does_not_wait_for_a_slow_model(start: Start, model: Model) -> None:
    answered = asyncio.Event()
    model.before = answered.wait
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: bool(model.asked))
        await say(client, 2, "Hi again")
        answered.set()


async def test_a_memory_that_is_initialised_meanwhile_wins(start: Start, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:

        async def initialise_meanwhile() -> None:
            model.before = None
            model.answer = "From the new summary."
            answer = await client.post("/memories/junaid/initialize", json=JUNAID | {"preferred_style": "formal"})
            assert answer.status_code == 200

        model.before = initialise_meanwhile
        model.answer = "From the old summary."
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "From the new summary."

        await until(told)
        assert (await client.get("/memories/junaid")).json()["preferred_style"] == "formal"
    assert [asked["user"].split("\n")[0] for asked in model.asked] == [
        "Present summary: junaid is a new user.",
        "Present summary: Junaid likes books.",
    ]


@pytest.mark.parametrize("failure", [500, 429, 401, "", "  \n"])
async def test_a_model_that_fails_is_asked_again(
    start: Start, model: Model, failure: str | int, caplog: pytest.LogCaptureFixture
) -> None:
    model.answer = failure
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: bool(model.asked))
        await say(client, 2, "more")
        await until(lambda: len(model.asked) == 2)
        assert await summary(client) == "junaid is a new user."
        model.answer = "Junaid reads."

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
    assert "User: Hi\nAssistant: reply 1\nUser: more" in model.asked[-1]["user"]
    records = [record for record in caplog.records if record.message == "summary not rolled up"]
    assert len(records) >= 2
    assert "junaid" not in str(records[0].__dict__["user"])


async def test_a_user_whose_text_the_model_refuses_is_given_up(
    start: Start, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.answer = 400
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: len(outcomes(caplog)) == summaries.ATTEMPTS)
        assert outcomes(caplog) == [True] * (summaries.ATTEMPTS - 1) + [False]
        model.answer = "Junaid reads."
        await say(client, 2, "more")
        await until(lambda: len(model.asked) > summaries.ATTEMPTS)


def outcomes(caplog: pytest.LogCaptureFixture) -> list[bool]:
    return [record.__dict__["again"] for record in caplog.records if record.message == "summary not rolled up"]


async def test_a_model_that_is_down_for_long_makes_nobody_forgotten(
    start: Start, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.answer = 503
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: len(model.asked) > summaries.ATTEMPTS + 2)
        model.answer = "Junaid reads."

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
    assert all(outcomes(caplog))


def completion(message: object) -> web.Response:
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return web.json_response({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices})


ODD: dict[str, Callable[[], web.Response]] = {
    "HTML": lambda: web.Response(text="<html>Sign in</html>", content_type="text/html"),
    "no choices": lambda: web.json_response({"id": "1", "object": "chat.completion"}),
    "choices as null": lambda: web.json_response({"id": "1", "choices": None}),
    "choices as text": lambda: web.json_response({"id": "1", "choices": "none"}),
    "no message": lambda: completion(None),
    "no content": lambda: completion({"role": "assistant", "content": None}),
    "parts that are no text": lambda: completion({"role": "assistant", "content": [{"type": "image_url"}]}),
    "bytes that are not UTF-8": lambda: web.Response(body=b'{"choices": "\xff"}', content_type="application/json"),
    "an error within a 200": lambda: web.json_response({"error": {"message": "A secret", "code": 400}}),
    "half of it": lambda: web.Response(text='{"id": "1", "choi', content_type="application/json"),
    "a list": lambda: web.json_response([]),
    "null": lambda: web.json_response(None),
    "nothing but thoughts": lambda: completion({"role": "assistant", "content": "<think>Hm.</think>"}),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_answer_that_nobody_expected_is_told_and_asked_for_again(
    start: Start, model: Model, caplog: pytest.LogCaptureFixture, odd: Callable[[], web.Response]
) -> None:
    model.odd = odd
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "A secret")
        await until(lambda: len(model.asked) == 2)
        model.odd = None

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
    records = [record for record in caplog.records if record.message == "summary not rolled up"]
    assert records
    for record in records:
        told = record.__dict__
        assert (bool(told["error"]), bool(told["cause"]), len(told["trace_id"])) == (True, True, 32)
    assert not any("secret" in str(record.__dict__) for record in caplog.records)


async def test_a_server_that_answers_oddly_for_long_loses_no_summary(
    start: Start, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    model.odd = ODD["HTML"]
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")
        await until(lambda: len(outcomes(caplog)) > summaries.ATTEMPTS + 1)
        assert all(outcomes(caplog))
        model.odd = None

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)


async def test_a_summary_in_parts_is_a_summary(start: Start, model: Model) -> None:
    parts = [{"type": "text", "text": "Junaid "}, {"type": "text", "text": "reads."}]
    model.odd = lambda: completion({"role": "assistant", "content": parts})
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)


async def test_what_a_model_says_to_itself_is_no_part_of_the_summary(start: Start, model: Model) -> None:
    model.answer = "<think>They said\nHi.</think>\nJunaid reads."
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)


async def test_one_users_refused_text_holds_up_nobody_else(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "FIRST_BACKOFF_SECONDS", 60)
    monkeypatch.setattr(summaries, "LONGEST_BACKOFF_SECONDS", 60)
    model.answer = 400
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "POISON", user_id="bad")
        await until(lambda: bool(model.asked))
        model.answer = "Known."
        for number in range(5):
            await say(client, 1, "Hi", user_id=f"good{number}")

        async def told() -> bool:
            return {await summary(client, f"good{number}") for number in range(5)} == {"Known."}

        await until(told, seconds=5)


async def test_a_roll_up_survives_its_pod_though_the_user_never_returns(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "LOOK_SECONDS", 0.05)
    async with start() as dying:  # it is never drained, and its time has not come
        await say(dying, 1, "I read Dune")
        await say(dying, 2, "And Emma", session_id="s2")
    async with start(**QUICK, model_base_url=model.url) as client:

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
    assert "User: I read Dune\nAssistant: reply 1\nUser: And Emma" in model.asked[0]["user"]
    assert len(model.asked) == 1


async def test_a_pod_that_goes_leaves_what_it_could_not_finish_to_the_others_at_once(
    sidecar: FakeSidecar, start: Start, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "DRAIN_SECONDS", 0.1)
    model.before = asyncio.Event().wait
    service = Service(Settings(dapr_http_port=sidecar.port, model_base_url=model.url))
    async with service.app.router.lifespan_context(service.app):
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(service.app), base_url="http://memory")
        await say(client, 1, "Hi")
        await service.drain()
    model.before = None
    async with start(**QUICK, model_base_url=model.url) as client:

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)  # the first look, not the third


async def test_what_is_rolled_up_is_not_due_any_more(start: Start, sidecar: FakeSidecar, model: Model) -> None:
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def settled() -> bool:
            journals = [key for key in sidecar.state["statestore"] if key.startswith("due-") and ":" in key]
            return bool(model.asked) and not any(sidecar.state["statestore"].get(key)["users"] for key in journals)

        await until(settled)


async def test_what_a_later_release_put_into_a_memory_stays(start: Start, sidecar: FakeSidecar, model: Model) -> None:
    state = sidecar.state["statestore"]
    known = {"version": 1, "tomorrow": 1, "memory": JUNAID | {"mood": "sunny"}}
    state.set("memory-junaid", known, concurrency="first-write")
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "Junaid reads."

        await until(told)
        for _ in range(2):
            assert (state.get("memory-junaid")["tomorrow"], state.get("memory-junaid")["memory"]["mood"]) == (
                1,
                "sunny",
            )
            await client.post("/memories/junaid/initialize", json=JUNAID)


async def test_a_missing_key_is_told_once_and_waited_for(
    start: Start, sidecar: FakeSidecar, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(**QUICK, model_provider="gemini", model_base_url=model.url) as client:
        for number in range(1, 4):
            await say(client, 1, "Hi", user_id=f"user{number}")
        await until(lambda: sum("/secrets/" in request for request in sidecar.requests) > 10)
        records = [record for record in caplog.records if record.name == "agent_memory_service.summaries"]
        assert [record.message for record in records] == ["summaries wait for the model's key"]
        assert "gemini-api-key" in str(records[0].__dict__["error"])
        sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "the-key"}

        async def told() -> bool:
            return {await summary(client, f"user{number}") for number in range(1, 4)} == {"Junaid reads."}

        await until(told)
    assert model.authorization == "Bearer the-key"


async def test_a_summary_that_is_too_long_is_cut(start: Start, model: Model) -> None:
    model.answer = "x" * (MAX_SUMMARY + 1)
    async with start(**QUICK, model_base_url=model.url) as client:
        await say(client, 1, "Hi")

        async def told() -> bool:
            return await summary(client) == "x" * MAX_SUMMARY

        await until(told)


async def test_roll_ups_keep_to_their_rate(start: Start, model: Model) -> None:
    wait = {"summary_quiet_seconds": 0.01, "summary_max_wait_seconds": 1, "summary_max_per_second": 10}
    async with start(**wait, model_base_url=model.url) as client:
        began = time.monotonic()
        await asyncio.gather(*(say(client, 1, "Hi", user_id=f"user{number}") for number in range(6)))
        await until(lambda: len(model.asked) == 6)
        assert time.monotonic() - began > 0.5  # five waits between six


async def test_users_beyond_the_bound_are_left_out(
    start: Start, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(summaries, "USERS", 3)
    async with start(**QUICK | {"summary_quiet_seconds": 1}, model_base_url=model.url) as client:
        for number in range(6):
            await say(client, 1, "Hi", user_id=f"user{number}")
        await until(lambda: len(model.asked) == 3)
        await asyncio.sleep(0.4)
        assert len(model.asked) == 3
    assert [record.levelno for record in caplog.records if "fall behind" in record.message] == [logging.WARNING]


def event(user_id: str = "junaid") -> ConversationUpdated:
    return ConversationUpdated(**conversation_updated(user_id=user_id)["data"])


async def test_a_pod_that_goes_rolls_up_who_waits(sidecar: FakeSidecar, model: Model) -> None:
    service = Service(Settings(dapr_http_port=sidecar.port, model_base_url=model.url))
    async with service.app.router.lifespan_context(service.app):
        await asyncio.gather(*(service.events.take(event(f"user{number}")) for number in range(20)))
        await service.drain()
    assert len(model.asked) == 20
    assert sidecar.state["statestore"].get("memory-user7")["memory"]["user_summary"] == "Junaid reads."


async def test_a_pod_that_goes_does_not_wait_for_a_model_that_is_down(
    sidecar: FakeSidecar, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(summaries, "DRAIN_SECONDS", 60)
    model.answer = 500
    service = Service(Settings(dapr_http_port=sidecar.port, model_base_url=model.url))
    async with service.app.router.lifespan_context(service.app):
        await asyncio.gather(*(service.events.take(event(f"user{number}")) for number in range(20)))
        began = time.monotonic()
        await service.drain()
    assert time.monotonic() - began < 30
    assert len(model.asked) <= summaries.AT_ONCE
    (left,) = [
        record.__dict__["users"] for record in caplog.records if record.message == "summaries left to other pods"
    ]
    assert left == 20


async def test_a_pod_that_goes_does_not_wait_long_for_a_slow_model(
    sidecar: FakeSidecar, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "DRAIN_SECONDS", 0.2)
    model.before = asyncio.Event().wait
    service = Service(Settings(dapr_http_port=sidecar.port, model_base_url=model.url))
    async with service.app.router.lifespan_context(service.app):
        await service.events.take(event())
        async with asyncio.timeout(10):
            await service.drain()
