"""The client of the sidecar, over a real connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from daca_common.dapr import CREATE, DaprClient, DaprError, DaprUnavailable, StateWrite
from daca_common.logs import traceparent
from support.sidecar import MAX_BODY, FakeSidecar, hang_up


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


@pytest.fixture
async def dapr(sidecar: FakeSidecar) -> AsyncIterator[DaprClient]:
    async with DaprClient(sidecar.port) as dapr:
        yield dapr


async def test_state_that_is_not_there_is_none(dapr: DaprClient) -> None:
    assert await dapr.get_state("statestore", "k") == (None, None)


async def test_state_is_created_once(dapr: DaprClient) -> None:
    assert await dapr.save_state("statestore", "k", {"a": 1}, None)
    assert not await dapr.save_state("statestore", "k", {"a": 2}, None)
    assert await dapr.get_state("statestore", "k") == ({"a": 1}, "1")


async def test_state_is_written_over_what_was_read(dapr: DaprClient) -> None:
    await dapr.save_state("statestore", "k", 1, None)
    _, etag = await dapr.get_state("statestore", "k")
    assert await dapr.save_state("statestore", "k", 2, etag)
    assert not await dapr.save_state("statestore", "k", 3, etag)
    assert await dapr.get_state("statestore", "k") == (2, "2")


@pytest.mark.parametrize("key", ["a@b+c", "a:1", "a b", "a/b", "a%2Fb", "é"])
async def test_a_key_is_one_key_in_path_and_body(dapr: DaprClient, sidecar: FakeSidecar, key: str) -> None:
    await dapr.save_state("statestore", key, 1, None)
    assert list(sidecar.state["statestore"]) == [key]
    assert await dapr.get_state("statestore", key) == (1, "1")


async def test_a_large_value_is_sent_as_it_is(dapr: DaprClient) -> None:
    text = "🦊" * 700_000
    await dapr.save_state("statestore", "k", text, None)
    assert await dapr.get_state("statestore", "k") == (text, "1")


async def test_a_value_the_sidecar_does_not_take_is_an_error(dapr: DaprClient) -> None:
    with pytest.raises(DaprError) as raised:
        await dapr.save_state("statestore", "k", "x" * MAX_BODY, None)
    assert (raised.value.status, raised.value.message) == (400, "stream too large")


async def test_actor_state_is_fenced_by_its_etag(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    sidecar.backend.active["T", "a@b"] = sidecar
    assert await dapr.get_actor_state("T", "a@b", "k") is None
    await dapr.put_actor_state("T", "a@b", "k", {"rev": 1}, CREATE)
    await dapr.put_actor_state("T", "a@b", "k", {"rev": 2}, "1")
    for stale in (CREATE, "1", "3"):
        with pytest.raises(DaprError) as refused:
            await dapr.put_actor_state("T", "a@b", "k", {"rev": 9}, stale)
        assert "failed to set key" in refused.value.message
        assert "a@b" not in str(refused.value)
    assert await dapr.get_actor_state("T", "a@b", "k") == {"rev": 2}


async def test_the_state_of_an_actor_that_is_elsewhere_is_refused(dapr: DaprClient) -> None:
    with pytest.raises(DaprError) as refused:
        await dapr.get_actor_state("T", "a@b", "k")
    assert refused.value.code == "ERR_ACTOR_INSTANCE_MISSING"


async def test_a_key_is_removed_if_it_still_is_what_was_read(dapr: DaprClient) -> None:
    await dapr.save_state("statestore", "k", 1, None)
    await dapr.save_state("statestore", "k", 2, "1")
    assert not await dapr.delete_state("statestore", "k", "1")
    assert await dapr.delete_state("statestore", "k", "2")
    assert await dapr.get_state("statestore", "k") == (None, None)
    assert await dapr.delete_state("statestore", "k")


async def test_several_keys_are_written_whatever_was_there(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    await dapr.put_states("statestore", {"a": 1})
    await dapr.put_states("statestore", {"a": 2, "b": 3}, ttl_seconds=60)
    assert [await dapr.get_state("statestore", key) for key in "ab"] == [(2, "2"), (3, "1")]
    assert sidecar.state["statestore"].ttl("b") == 60


async def test_several_keys_are_read_in_their_order_those_that_are_not_there_as_none(dapr: DaprClient) -> None:
    await dapr.put_states("statestore", {"a": 1, "b": {"c": "||"}})
    assert await dapr.get_states("statestore", ["b", "x", "a", "b"]) == [
        ({"c": "||"}, "1"),
        (None, None),
        (1, "1"),
        ({"c": "||"}, "1"),
    ]


async def test_a_key_that_can_not_be_read_is_an_error_of_all(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.json_response([{"key": "a", "data": 1, "etag": "1"}, {"key": "b", "error": "connection refused"}])

    sidecar.before = fail
    with pytest.raises(DaprError) as raised:
        await dapr.get_states("statestore", ["a", "b"])
    assert raised.value.code == "ERR_STATE_GET"


async def test_of_several_writes_the_refused_one_leaves_the_others(dapr: DaprClient) -> None:
    assert await dapr.save_states("statestore", [StateWrite("a", 1, CREATE), StateWrite("b", 1, None)])
    assert not await dapr.save_states("statestore", [StateWrite("a", 2, CREATE), StateWrite("c", 2, CREATE)])
    assert [value for value, _ in await dapr.get_states("statestore", ["a", "b", "c"])] == [1, 1, 2]


async def test_an_event_is_published_as_the_cloud_event_that_it_is(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    types: list[str] = []

    async def note(request: web.Request) -> None:
        types.append(request.content_type)

    sidecar.before = note
    await dapr.publish("pubsub", "conversations", {"specversion": "1.0", "id": "7", "data": {"a": 1}})
    assert sidecar.published == [("pubsub", "conversations", {"specversion": "1.0", "id": "7", "data": {"a": 1}})]
    assert types == ["application/cloudevents+json"]


async def test_a_secret_is_read_and_a_missing_one_is_empty(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    sidecar.secrets["gemini-api-key"] = {"gemini-api-key": "k"}
    assert await dapr.get_secret("secretstore", "gemini-api-key") == {"gemini-api-key": "k"}
    assert await dapr.get_secret("secretstore", "other") == {}


async def test_a_secret_that_may_not_be_read_is_an_error(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def forbid(_: web.Request) -> web.Response:
        body = {"errorCode": "ERR_PERMISSION_DENIED", "message": "access denied by policy"}
        return web.json_response(body, status=403)

    sidecar.before = forbid
    with pytest.raises(DaprError) as raised:
        await dapr.get_secret("secretstore", "gemini-api-key")
    assert (raised.value.status, raised.value.code) == (403, "ERR_PERMISSION_DENIED")


async def test_another_service_is_invoked(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def service(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        seen.append((method, path, body))
        return 200, b'{"name": "Junaid"}'

    sidecar.services["memory"] = service
    assert await dapr.invoke_service("memory", "GET", "memories/a%40b") == {"name": "Junaid"}
    assert await dapr.invoke_service("memory", "POST", "x", {"a": 1}) == {"name": "Junaid"}
    assert seen == [("GET", "memories/a%40b", b""), ("POST", "x", b'{"a":1}')]


async def test_a_service_that_is_not_there_is_an_error(dapr: DaprClient) -> None:
    with pytest.raises(DaprError) as raised:
        await dapr.invoke_service("nobody", "GET", "x")
    assert raised.value.code == "ERR_DIRECT_INVOKE"


async def test_an_actors_error_is_an_error(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def fail(_: web.Request) -> web.Response:
        body = {"errorCode": "ERR_ACTOR_INVOKE_METHOD", "message": "no host"}
        return web.json_response(body, status=500)

    sidecar.before = fail
    with pytest.raises(DaprError) as raised:
        await dapr.invoke_actor("T", "a", "M", {})
    assert (raised.value.status, raised.value.code, raised.value.message) == (500, "ERR_ACTOR_INVOKE_METHOD", "no host")


@pytest.mark.parametrize("body", ["", "<html>", "[]", '"x"', "null"])
async def test_an_error_that_is_not_daprs_is_an_error_all_the_same(
    dapr: DaprClient, sidecar: FakeSidecar, body: str
) -> None:
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=502, text=body)

    sidecar.before = fail
    with pytest.raises(DaprError) as raised:
        await dapr.metadata()
    assert (raised.value.status, raised.value.code) == (502, "")


async def test_a_sidecar_that_is_gone_is_unavailable(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    await dapr.metadata()
    await sidecar.stop()
    with pytest.raises(DaprUnavailable):
        await dapr.metadata()
    await dapr.gone()


async def test_an_answer_that_breaks_off_is_unavailable(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def lose(request: web.Request) -> None:
        hang_up(request)

    sidecar.after = lose
    with pytest.raises(DaprUnavailable):
        await dapr.save_state("statestore", "k", 1, None)


async def test_an_answer_that_takes_too_long_is_unavailable(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    async def dawdle(_: web.Request) -> None:
        await asyncio.sleep(1)

    sidecar.before = dawdle
    with pytest.raises(DaprUnavailable, match="TimeoutError"):
        await dapr.invoke_actor("T", "a", "M", {}, timeout_seconds=0.1)


async def test_the_api_token_is_shown() -> None:
    async with FakeSidecar(api_token="right") as sidecar:
        async with DaprClient(sidecar.port, api_token="right") as dapr:
            await dapr.metadata()
        async with DaprClient(sidecar.port) as dapr:
            with pytest.raises(DaprError) as raised:
                await dapr.metadata()
    assert raised.value.status == 401


async def test_the_trace_goes_on(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    seen: list[str | None] = []

    async def note(request: web.Request) -> None:
        seen.append(request.headers.get("traceparent"))

    sidecar.before = note
    await dapr.metadata()
    token = traceparent.set("00-a-b-01")
    await dapr.metadata()
    traceparent.reset(token)
    assert seen == [None, "00-a-b-01"]


async def test_connections_are_used_again(dapr: DaprClient, sidecar: FakeSidecar) -> None:
    peers: set[Any] = set()

    async def note(request: web.Request) -> None:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))

    sidecar.before = note
    for _ in range(5):
        await dapr.metadata()
    assert len(peers) == 1


@pytest.mark.parametrize("status", [409, 500])
async def test_a_store_that_is_full_is_no_other_writer(dapr: DaprClient, sidecar: FakeSidecar, status: int) -> None:
    async def full(_: web.Request) -> web.Response:
        message = (
            "possible etag mismatch. error from state store: OOM command not allowed when used memory > 'maxmemory'."
        )
        return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": message}, status=status)

    sidecar.before = full
    for write in (dapr.save_state("statestore", "k", 1, "1"), dapr.delete_state("statestore", "k", "1")):
        with pytest.raises(DaprError) as raised:
            await write
        assert raised.value.store_full
