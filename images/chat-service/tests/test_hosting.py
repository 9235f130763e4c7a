"""How the actor is hosted: what goes to the sidecar and comes from it as JSON."""

import gc
import weakref
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import orjson
import pytest
from chat_service.actor import UserSessionActor
from chat_service.hosting import ActorCalls, ActorClient, JsonSerializer
from daca_common.dapr import DaprClient
from dapr.actor import Actor, ActorInterface, ActorRuntime, actormethod
from dapr.actor.runtime._timer_data import ActorTimerData
from fastapi import FastAPI
from support.store import Pods


async def callback(_: object) -> None:
    """What a timer calls."""


def test_text_that_looks_like_a_date_or_a_duration_stays_text():
    said = {"user_text": "5m", "reply_text": "2026-11-23T17:14:48Z"}
    json = JsonSerializer()
    assert json.deserialize(json.serialize(said)) == said


def test_a_timer_of_the_sdk_is_written_with_daprs_durations():
    timer = ActorTimerData("summary", callback, None, timedelta(seconds=3), timedelta(minutes=5, milliseconds=20))
    written = orjson.loads(JsonSerializer().serialize(timer.as_dict()))
    assert written == {
        "callback": "callback",
        "data": None,
        "dueTime": "0h0m3s0ms0\u03bcs",
        "period": "0h5m0s20ms0\u03bcs",
    }


def test_what_is_not_json_is_refused():
    with pytest.raises(TypeError):
        JsonSerializer().serialize({"text": {1, 2}})


class LampInterface(ActorInterface):
    @actormethod(name="Switch")
    async def switch(self, arguments: object) -> object: ...


class Lamp(Actor, LampInterface):
    """An actor that does as it is told, or fails."""

    async def switch(self, arguments: object) -> object:
        if not isinstance(arguments, dict):
            raise TypeError(f"not what a lamp takes: {arguments}")
        return arguments | {"id": self.id.id}


@pytest.fixture
async def sidecar(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.setattr(ActorRuntime, "_actor_managers", {})  # the SDK has one runtime a process
    client = ActorClient(DaprClient(1))
    await ActorRuntime.register_actor(Lamp, message_serializer=JsonSerializer(), actor_client=client)
    app = FastAPI()
    app.add_middleware(ActorCalls)
    app.put("/actors/{actor_type}/{actor_id}/method/timer/{name}")(lambda name: {"timer": name})
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as sidecar:
        yield sidecar


async def test_a_method_is_called_and_the_actor_deactivated_once(sidecar: httpx2.AsyncClient):
    answer = await sidecar.put("/actors/Lamp/a@b+c/method/Switch", json={"on": True})
    assert (answer.status_code, answer.json()) == (200, {"on": True, "id": "a@b+c"})
    assert [(await sidecar.delete("/actors/Lamp/a@b+c")).status_code for _ in range(2)] == [200, 500]


async def test_an_actor_that_raises_is_a_500_that_quotes_nobody(sidecar: httpx2.AsyncClient):
    answer = await sidecar.put("/actors/Lamp/a/method/Switch", json="A SECRET")
    assert (answer.status_code, answer.json()["message"]) == (500, "TypeError")
    assert (await sidecar.put("/actors/Radio/a/method/Switch", json={})).status_code == 500


async def test_everything_else_goes_on_to_the_sdks_routes(sidecar: httpx2.AsyncClient):
    assert (await sidecar.put("/actors/Lamp/a/method/timer/summary")).json() == {"timer": "summary"}
    assert (await sidecar.get("/actors/Lamp/a")).status_code == 404


async def test_a_deactivated_actor_leaves_memory_at_once(sidecar: httpx2.AsyncClient):
    """Cycles are looked for seldom: hundreds of thousands that fell idle would stay until then."""
    host = Pods().host()
    json = JsonSerializer()
    await ActorRuntime.register_actor(
        UserSessionActor,
        message_serializer=json,
        state_serializer=json,
        actor_factory=lambda context, actor_id: UserSessionActor(context, actor_id, host, lambda _: None),
        actor_client=ActorClient(DaprClient(1)),
    )
    assert (await sidecar.put("/actors/UserSessionActor/alice/method/ClearHistory", content=b"{}")).status_code == 200
    session = weakref.ref(host.find("alice"))
    gc.collect()
    gc.disable()
    try:
        assert (await sidecar.delete("/actors/UserSessionActor/alice")).status_code == 200
        assert session() is None
    finally:
        gc.enable()
