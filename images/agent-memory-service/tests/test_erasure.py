"""A user is erased everywhere, over HTTP; the actor is one in memory. What may come between is in test_transcripts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import orjson
import pytest
from aiohttp import web
from fastapi import FastAPI
from support.events import conversation_updated
from support.serving import Start, serving
from support.sidecar import FakeSidecar, keys_of

JUNAID = {"name": "Junaid", "preferred_style": "casual", "user_summary": "A SECRET."}
SAID = {"user_message": "A SECRET", "assistant_reply": "A SECRET"}


class Actor:
    """The users' sessions, as far as an erasure sees them."""

    def __init__(self) -> None:
        self.answer: object = {"status": "erased", "sequence": 5, "removed": {"exchanges": 5}}
        self.erased: list[str] = []


@pytest.fixture
async def actor(sidecar: FakeSidecar) -> AsyncIterator[Actor]:
    actor = Actor()
    app = FastAPI()

    @app.put("/actors/UserSessionActor/{user_id}/method/Erase")
    async def erase(user_id: str) -> Any:
        actor.erased.append(user_id)
        return actor.answer

    @app.put("/actors/UserSessionActor/{user_id}/method/MemoryChanged")
    async def memory_changed(user_id: str) -> Any:
        return {"status": "done"}

    async with serving(app) as url:
        sidecar.app_url = url
        sidecar.backend.hosts.append(sidecar)
        yield actor


async def say(client: httpx2.AsyncClient, number: int, **more: Any) -> None:
    answer = await client.post("/conversations", json=conversation_updated(number, **SAID | more))
    assert answer.json() == {"status": "SUCCESS"}


async def live_a_little(client: httpx2.AsyncClient) -> None:
    await client.post("/memories/junaid/initialize", json=JUNAID)
    for number in range(1, 5):
        await say(client, number, session_id=f"s{number % 2}")
    await client.post("/dead-letters", json=conversation_updated(5, **SAID))
    await client.post("/dead-letters", json={"data": {"user_id": "junaid", "user_message": "A SECRET"}})


def traces(sidecar: FakeSidecar) -> list[str]:
    """Keys of documents that hold what was said, or name the user; marks of erased ones do neither."""
    state = sidecar.state["statestore"]
    values = {key: orjson.dumps(state.get(key)).decode() for key in state}
    return [key for key, value in values.items() if "SECRET" in value or "junaid" in value]


async def test_an_erased_user_is_a_new_one_and_nowhere(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, actor: Actor
) -> None:
    await live_a_little(client)
    await say(client, 1, user_id="other", session_id="s1", user_message="hello", assistant_reply="hi")
    answer = await client.delete("/memories/junaid")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "status": "success",
            "user_id": "junaid",
            "removed": {
                "actor": {"exchanges": 5},
                "memories": 1,
                "sessions": 2,
                "turns": 4,
                "due_summaries": 1,
                "dead_letters": 2,
            },
        },
    )
    assert actor.erased == ["junaid"]
    assert traces(sidecar) == []
    assert (await client.get("/memories/junaid")).json()["user_summary"] == "junaid is a new user."
    assert (await client.get("/conversations/s1?user_id=other")).json()["history"][0]["content"] == "hello"


async def test_late_events_are_taken_and_stored_nowhere(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, actor: Actor
) -> None:
    await live_a_little(client)
    await client.delete("/memories/junaid")
    for number in range(1, 6):
        await say(client, number, session_id=f"s{number}")
        assert (await client.post("/dead-letters", json=conversation_updated(number, **SAID))).json() == {
            "status": "SUCCESS"
        }
    assert traces(sidecar) == []
    assert (await client.get("/dead-letters")).json() == {"dead_letters": []}


async def test_a_dead_letter_that_was_read_before_is_replayed_into_nothing(
    client: httpx2.AsyncClient, sidecar: FakeSidecar, actor: Actor
) -> None:
    await client.post("/dead-letters", json=conversation_updated(5, **SAID))
    (letter,) = (await client.get("/dead-letters")).json()["dead_letters"]
    key = f"dead-letter-{letter['id']}"
    kept = {name: sidecar.state["statestore"].get(name) for name in (key, "dead-letters")}
    await client.delete("/memories/junaid")
    for name, value in kept.items():  # a pod that was late to notice
        sidecar.state["statestore"].set(name, value, sidecar.state["statestore"].etag(name))
    assert (await client.post(f"/dead-letters/{letter['id']}/replay")).status_code == 200
    assert traces(sidecar) == []


async def test_the_user_may_come_back(client: httpx2.AsyncClient, sidecar: FakeSidecar, actor: Actor) -> None:
    await live_a_little(client)
    await client.delete("/memories/junaid")
    await say(client, 6, session_id="s1", user_message="Hello again", assistant_reply="Hi")
    answer = (await client.get("/conversations/s1")).json()
    assert [entry["content"] for entry in answer["history"]] == ["Hello again", "Hi"]
    await client.post("/memories/junaid/initialize", json=JUNAID | {"user_summary": "New."})
    assert (await client.get("/memories/junaid")).json()["user_summary"] == "New."
    state = sidecar.state["statestore"]
    assert {state.ttl(key) for key in ("memory-junaid", "turns-s1:junaid", "turns-s1:junaid:0", "session-s1")} == {-1}


async def test_erasing_again_removes_nothing_and_succeeds(client: httpx2.AsyncClient, actor: Actor) -> None:
    await live_a_little(client)
    await client.delete("/memories/junaid")
    answer = (await client.delete("/memories/junaid")).json()
    kinds = ("memories", "sessions", "turns", "due_summaries", "dead_letters")
    assert answer["removed"] == {"actor": {"exchanges": 5}} | dict.fromkeys(kinds, 0)


async def test_somebody_whom_nobody_knows_can_be_erased(client: httpx2.AsyncClient, actor: Actor) -> None:
    actor.answer = {"status": "erased", "sequence": 0, "removed": {}}
    assert (await client.delete("/memories/nobody")).status_code == 200
    await say(client, 1, user_id="nobody")
    assert len((await client.get("/conversations/s1")).json()["history"]) == 2


@pytest.mark.parametrize("answer", [None, {"status": "busy"}, {"status": "erased"}, "no"])
async def test_an_actor_that_does_not_say_erased_leaves_all_as_it_is(
    client: httpx2.AsyncClient, actor: Actor, answer: object
) -> None:
    await live_a_little(client)
    actor.answer = answer
    refused = await client.delete("/memories/junaid")
    assert refused.status_code == 503
    assert refused.json()["type"] == "/problems/erasure-unfinished"
    assert (await client.get("/memories/junaid")).json() == JUNAID


async def test_an_erasure_that_breaks_off_anywhere_is_finished_by_another(
    start: Start, sidecar: FakeSidecar, actor: Actor
) -> None:
    step = 0
    done = False
    while not done:
        sidecar.state.clear()
        async with start() as client:
            await live_a_little(client)
            calls = 0

            async def fail(request: web.Request, step: int = step) -> web.Response | None:
                nonlocal calls
                if "/state/" not in request.path or any(key.startswith("due-") for key in await keys_of(request)):
                    return None
                calls += 1
                return web.json_response({"message": "no"}, status=500) if calls > step else None

            sidecar.before = fail
            done = (await client.delete("/memories/junaid")).status_code == 200
            sidecar.before = None
            assert (await client.delete("/memories/junaid")).status_code == 200
            assert traces(sidecar) == []
        step += 5
    assert step > 20


async def test_a_roll_up_that_runs_meanwhile_is_not_written(start: Start, sidecar: FakeSidecar, actor: Actor) -> None:
    asked, going_on = asyncio.Event(), asyncio.Event()

    async def complete(_: web.Request) -> web.Response:
        asked.set()
        await going_on.wait()
        message = {"role": "assistant", "content": "A SECRET."}
        return web.json_response({"id": "1", "choices": [{"index": 0, "message": message}]})

    app = web.Application()
    app.router.add_post("/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    model = f"http://127.0.0.1:{runner.addresses[0][1]}"
    quick = {"summary_quiet_seconds": 0.01, "summary_max_per_second": 200}
    async with start() as other, start(**quick, model_base_url=model) as client:
        await say(client, 1)
        await asked.wait()
        assert (await other.delete("/memories/junaid")).status_code == 200  # not the pod where it runs
        going_on.set()

        async with asyncio.timeout(10):
            while True:  # that pod looks again, finds nothing, and writes the user off its journal
                await asyncio.sleep(0.01)
                if traces(sidecar) == []:
                    break
    assert traces(sidecar) == []
    await runner.cleanup()
