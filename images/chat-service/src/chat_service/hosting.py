"""Hosts ``UserSessionActor`` in this process through the SDK's FastAPI extension, with what the SDK leaves open.

The SDK's default JSON turns text such as ``5m`` into a duration, and its HTTP client connects anew for each call and
waits for the sidecar in its constructor; both can be replaced. Its routes cost a millisecond a call, hence
:class:`ActorCalls`.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final, NoReturn
from urllib.parse import quote

import orjson
from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from dapr.actor import ActorId, ActorRuntime
from dapr.actor.runtime.config import ActorReentrancyConfig, ActorRuntimeConfig, ActorTypeConfig
from dapr.actor.runtime.context import ActorRuntimeContext
from dapr.clients.base import DaprActorClientBase
from dapr.clients.exceptions import ERROR_CODE_UNKNOWN
from dapr.ext.fastapi import DaprActor
from dapr.serializers import Serializer
from dapr.serializers.util import convert_to_dapr_duration
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from chat_service.actor import UserSessionActor
from chat_service.session import SessionHost
from chat_service.settings import Settings
from chat_service.store import ACTOR_TYPE

COUNT_SECONDS: Final = 1.0
COUNTS: Final = 3
"""So many times in a row this process has more sessions than its sidecar. Once is no sign: it may just be told."""

_log = logging.getLogger(__name__)


class JsonSerializer(Serializer):
    """JSON as it is: nothing in a text is taken for a date or a duration. Durations of the SDK go out as Dapr's."""

    def serialize(self, obj: object, custom_hook: object = None) -> bytes:  # noqa: ARG002 - the SDK's signature
        return orjson.dumps(obj, default=_duration)

    def deserialize(self, data: bytes, data_type: object = object, custom_hook: object = None) -> Any:  # noqa: ARG002
        return orjson.loads(data) if data else {}


def _duration(value: object) -> str:
    if isinstance(value, timedelta):
        return convert_to_dapr_duration(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


class ActorCalls:
    """Answers the sidecar's calls of methods and its deactivations ahead of FastAPI, as the SDK's routes would.

    When pods come or go, a sidecar deactivates thousands of actors at once, and nobody is answered meanwhile. The
    routes: https://docs.dapr.io/reference/api/actors_api/#dapr-calling-to-user-service-code
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/actors/"):
            await self._app(scope, receive, send)
            return
        match [scope["method"], *scope["path"].split("/")[2:]]:
            case ["DELETE", actor_type, actor_id]:
                answer = await _answered(_deactivate(actor_type, actor_id))
            case ["PUT", actor_type, actor_id, "method", method]:
                answer = await _answered(_invoke(actor_type, actor_id, method, Request(scope, receive)))
            case _:  # timers, of which there are few
                await self._app(scope, receive, send)
                return
        await answer(scope, receive, send)


async def _answered(call: Coroutine[Any, Any, bytes]) -> Response:
    try:
        return Response(await call, media_type="application/json")
    except ClientDisconnect:
        return Response(status_code=499)  # nobody reads it
    except Exception as error:  # noqa: BLE001 - whatever an actor raises is an answer to its caller
        # The type alone: its words may quote what a user said, and the caller's sidecar logs them.
        _log.info("an actor's method failed", extra={"error": type(error).__name__})
        told = {"message": type(error).__name__, "errorCode": ERROR_CODE_UNKNOWN}
        return Response(orjson.dumps(told), 500, media_type="application/json")


async def _deactivate(actor_type: str, actor_id: str) -> bytes:
    await ActorRuntime.deactivate(actor_type, actor_id)
    return b""


async def _invoke(actor_type: str, actor_id: str, method: str, request: Request) -> bytes:
    reentrancy_id = request.headers.get("dapr-reentrancy-id")
    return await ActorRuntime.dispatch(actor_type, actor_id, method, await request.body(), reentrancy_id)


class ActorClient(DaprActorClientBase):
    """The SDK's way out to the sidecar, over the process's pooled client."""

    def __init__(self, dapr: DaprClient) -> None:
        self._dapr = dapr

    async def invoke_method(self, actor_type: str, actor_id: str, method: str, data: bytes | None = None) -> bytes:
        return (await self._dapr.request("POST", _path(actor_type, actor_id, "method", method), data or b"{}")).body

    async def save_state_transactionally(self, actor_type: str, actor_id: str, data: bytes) -> None:
        await self._dapr.request("PUT", _path(actor_type, actor_id, "state"), data)

    async def get_state(self, actor_type: str, actor_id: str, name: str) -> bytes:
        return (await self._dapr.request("GET", _path(actor_type, actor_id, "state", name))).body

    async def register_reminder(self, actor_type: str, actor_id: str, name: str, data: bytes) -> None:
        await self._dapr.request("PUT", _path(actor_type, actor_id, "reminders", name), data)

    async def unregister_reminder(self, actor_type: str, actor_id: str, name: str) -> None:
        await self._dapr.request("DELETE", _path(actor_type, actor_id, "reminders", name))

    async def register_timer(self, actor_type: str, actor_id: str, name: str, data: bytes) -> None:
        await self._dapr.request("PUT", _path(actor_type, actor_id, "timers", name), data)

    async def unregister_timer(self, actor_type: str, actor_id: str, name: str) -> None:
        await self._dapr.request("DELETE", _path(actor_type, actor_id, "timers", name))


def _path(actor_type: str, actor_id: str, *parts: str) -> str:
    return "/".join(("/v1.0/actors", actor_type, *(quote(part, safe="") for part in (actor_id, *parts))))


def configure(settings: Settings) -> None:
    """What the sidecar is told of the actor type (``GET /dapr/config``).

    Of drains it is told twice. Dapr 1.18 takes the time of a rebalance from the type, but that of a lost placement
    stream, and whether there is a drain at all, from the host.
    """
    drain = timedelta(milliseconds=settings.actor_drain_timeout_ms)
    actor_type = ActorTypeConfig(
        actor_type=ACTOR_TYPE,
        actor_idle_timeout=timedelta(seconds=settings.actor_idle_timeout_seconds),
        actor_scan_interval=timedelta(seconds=settings.actor_scan_interval_seconds),
        drain_ongoing_call_timeout=drain,
        drain_rebalanced_actors=settings.actor_drain_rebalanced,
        reentrancy=ActorReentrancyConfig(enabled=settings.actor_reentrancy),
    )
    config = ActorRuntimeConfig(
        drain_ongoing_call_timeout=drain, drain_rebalanced_actors=settings.actor_drain_rebalanced
    )
    config.update_actor_type_configs([actor_type])
    ActorRuntime.set_actor_config(config)


async def register(actors: DaprActor, host: SessionHost, dapr: DaprClient, summarize: Callable[[str], None]) -> None:
    """Makes the SDK route the actor's calls to the sessions of ``host``; ``summarize`` is what their timer starts."""

    def activate(context: ActorRuntimeContext, actor_id: ActorId) -> UserSessionActor:
        return UserSessionActor(context, actor_id, host, summarize)

    serializer = JsonSerializer()
    await actors.register_actor(
        UserSessionActor,
        message_serializer=serializer,
        state_serializer=serializer,
        actor_factory=activate,
        actor_client=ActorClient(dapr),
    )


async def wait_until_registered(dapr: DaprClient) -> None:
    """Returns once placement has this process among the hosts of the actor type."""
    while True:
        try:
            runtime = (await dapr.metadata()).get("actorRuntime", {})
            if runtime.get("hostReady") and ACTOR_TYPE in _counts(runtime):
                return
        except (DaprError, DaprUnavailable):
            _log.debug("the sidecar does not answer yet")
        await asyncio.sleep(0.2)


async def end_untold(dapr: DaprClient, host: SessionHost) -> NoReturn:
    """Ends sessions that the sidecar has ended without a word, for as long as this process runs.

    It tells an app nothing that it takes for unhealthy, nor does one that was killed and started again (docs/moves.md).
    Which sessions these are it does not tell either, so all go in which nothing is under way.
    """
    surplus = 0
    while True:
        await asyncio.sleep(COUNT_SECONDS)
        try:
            active = _counts((await dapr.metadata()).get("actorRuntime", {})).get(ACTOR_TYPE, 0)
        except (DaprError, DaprUnavailable):
            continue
        surplus = surplus + 1 if host.active > active else 0
        if surplus == COUNTS:
            surplus = 0
            if ended := host.end_idle():
                _log.warning("the sidecar has ended actors without a word", extra={"sessions_ended": ended})


def _counts(runtime: Mapping[str, Any]) -> dict[str, int]:
    return {item["type"]: item.get("count", 0) for item in runtime.get("activeActors") or []}
