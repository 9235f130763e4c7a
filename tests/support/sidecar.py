"""A sidecar for unit and contract tests: Dapr's HTTP API over memory, on a real loopback port.

It keeps to what the real one was seen to do with Redis behind it, above all its ETags: a count of the writes to a key
from 1; a key that does not exist takes any; once a key of the state API was written first-write, it takes no write
without its ETag (a key of an actor does: a transaction does not pass the flag on). State of an actor is there only
where that is active. Several sidecars share one :class:`Backend`, as pods do. The end-to-end tests have the real one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import orjson
from aiohttp import web

MAX_BODY = 4 * 1024 * 1024
"""What daprd takes by default."""

Before = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
"""Sees a request first; what it returns is the answer. To break off the connection it calls :func:`hang_up`."""

After = Callable[[web.Request], Awaitable[None]]
"""Sees a request when it has taken effect and its answer is not sent yet."""

Service = Callable[[str, str, bytes], Awaitable[tuple[int, bytes]]]
"""Another app: HTTP method, path and body in; status and body out."""


def hang_up(request: web.Request) -> None:
    """Closes the connection of a request; its client gets no answer."""
    assert request.transport is not None
    request.transport.close()


def reads(request: web.Request) -> bool:
    """Whether a request of the state API reads: one that reads several keys is a POST, too."""
    return request.method == "GET" or request.path.endswith("/bulk")


async def keys_of(request: web.Request) -> list[str]:
    """The keys that a request of the state API reads or writes."""
    if request.method != "POST":
        return [request.match_info["key"]]
    asked = await request.json()
    return list(asked["keys"]) if reads(request) else [item["key"] for item in asked]


def forward(url: str) -> Service:
    """Another app that is served at ``url``."""

    async def service(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, f"{url}/{path}", data=body or None, headers=headers) as answer,
        ):
            return answer.status, await answer.read()

    return service


class Published(NamedTuple):
    """An event as it was published."""

    pubsub: str
    topic: str
    event: dict[str, Any]


class Refused(Exception):
    """A write whose ETag does not match; ``invalid`` where it is no ETag at all."""

    def __init__(self, key: str, *, invalid: bool = False) -> None:
        super().__init__(f"failed to set key {key}")
        self.invalid = invalid


@dataclass
class _Entry:
    data: bytes
    version: int
    first_write: bool
    ttl_seconds: int | None


class State:
    """Keys and values with the ETags of Dapr's Redis component."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def get(self, key: str) -> Any:
        """A value; ``None`` where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else orjson.loads(entry.data)

    def etag(self, key: str) -> str | None:
        """The ETag of a key; ``None`` where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else str(entry.version)

    def ttl(self, key: str) -> int | None:
        """The TTL that a key was last written with, in seconds."""
        return self._entries[key].ttl_seconds

    def set(
        self, key: str, value: object, etag: str | None = None, concurrency: str = "", ttl_seconds: int | None = None
    ) -> None:
        """Writes a key as the component does."""
        try:
            expected = int(etag) if etag and concurrency != "last-write" else 0
        except ValueError:
            raise Refused(key, invalid=True) from None
        entry = self._entries.get(key)
        unchecked = expected == 0 and entry is not None and not entry.first_write
        if entry is not None and expected != entry.version and not unchecked:
            raise Refused(key)
        first_write = concurrency == "first-write" or (entry is not None and entry.first_write)
        version = entry.version + 1 if entry is not None else 1
        self._entries[key] = _Entry(orjson.dumps(value), version, first_write, ttl_seconds)

    def restore(self, key: str, value: object, count: int) -> None:
        """Puts a value there with a count of writes, as a back-up or a hand does."""
        self._entries[key] = _Entry(orjson.dumps(value), count, first_write=False, ttl_seconds=None)

    def delete(self, key: str, etag: str | None = None) -> None:
        """Removes a key."""
        if etag is not None and self.etag(key) not in {None, etag}:
            raise Refused(key)
        self._entries.pop(key, None)


class Backend:
    """What the sidecars of a cluster share: the stores, the broker, and where each actor is."""

    def __init__(self) -> None:
        self.state: defaultdict[str, State] = defaultdict(State)
        """By component."""
        self.actor_state: defaultdict[tuple[str, str], State] = defaultdict(State)
        """By actor type and id."""
        self.published: list[Published] = []
        self.active: dict[tuple[str, str], FakeSidecar] = {}
        """The sidecar where an actor is active, by actor type and id."""
        self.hosts: list[FakeSidecar] = []
        """Sidecars that may host actors; one that is called for an actor that is nowhere activates it on the first."""


class FakeSidecar:
    """The sidecar of one app. What it was told is public, to be looked at and to be set.

    Use it as ``async with FakeSidecar() as sidecar`` and give its ``port`` to a ``DaprClient`` or as DAPR_HTTP_PORT.
    For actor calls set ``app_url`` to where the app is served.
    """

    def __init__(
        self, *, api_token: str | None = None, actor_types: tuple[str, ...] = (), backend: Backend | None = None
    ) -> None:
        self.port = 0
        self.app_url = ""
        self.api_token = api_token
        self.actor_types = actor_types
        self.backend = backend or Backend()
        if actor_types:
            self.backend.hosts.append(self)
        self.state = self.backend.state
        self.actor_state = self.backend.actor_state
        self.published = self.backend.published
        self.secrets: dict[str, dict[str, str]] = {}
        """By name; every secret store has the same."""
        self.services: dict[str, Service] = {}
        """By app id."""
        self.requests: list[str] = []
        """Method and path of each request, in the order they came."""
        self.timers: dict[tuple[str, str, str], bytes] = {}
        """What an actor's timer was set with, by actor type, id and name."""
        self.before: Before | None = None
        self.after: After | None = None
        self._actor_locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[self._watch])
        app.add_routes(
            [
                web.get("/v1.0/healthz/outbound", self._healthy),
                web.get("/v1.0/metadata", self._metadata),
                web.get("/v1.0/secrets/{store}/{name}", self._secret),
                web.post("/v1.0/publish/{pubsub}/{topic}", self._publish),
                web.get("/v1.0/state/{store}/{key}", self._get_state),
                web.post("/v1.0/state/{store}", self._save_state),
                web.post("/v1.0/state/{store}/bulk", self._get_states),
                web.delete("/v1.0/state/{store}/{key}", self._delete_state),
                web.get("/v1.0/actors/{type}/{id}/state/{key}", self._get_actor_state),
                web.put("/v1.0/actors/{type}/{id}/state", self._save_actor_state),
                web.put("/v1.0/actors/{type}/{id}/timers/{name}", self._set_timer),
                web.route("*", "/v1.0/actors/{type}/{id}/method/{method}", self._invoke_actor),
                web.route("*", "/v1.0/invoke/{app_id}/method/{path:.*}", self._invoke),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends the sidecar; calls are refused from then on."""
        await self._runner.cleanup()

    @web.middleware
    async def _watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if self.api_token is not None and request.headers.get("dapr-api-token") != self.api_token:
            return _error(401, "", "invalid api token")
        if self.before is not None and (answer := await self.before(request)) is not None:
            return answer
        try:
            answer = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            return _error(400, "ERR_MALFORMED_REQUEST", "stream too large")
        if self.after is not None:
            await self.after(request)
        return answer

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(status=204)

    async def _metadata(self, _: web.Request) -> web.Response:
        runtime = {
            "runtimeStatus": "RUNNING",
            "hostReady": bool(self.actor_types),
            "activeActors": [
                {"type": actor_type, "count": self._active(actor_type)} for actor_type in self.actor_types
            ],
        }
        return _json({"id": "test", "runtimeVersion": "fake", "actorRuntime": runtime})

    async def _secret(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.secrets:
            message = f'failed getting secret with key {name} from secret store: secrets "{name}" not found'
            return _error(500, "ERR_SECRET_GET", message)
        return _json(self.secrets[name])

    async def _publish(self, request: web.Request) -> web.Response:
        event = orjson.loads(await request.read())
        self.published.append(Published(request.match_info["pubsub"], request.match_info["topic"], event))
        return web.Response(status=204)

    async def _get_state(self, request: web.Request) -> web.Response:
        state, key = self.state[request.match_info["store"]], request.match_info["key"]
        etag = state.etag(key)
        return web.Response(status=204) if etag is None else _json(state.get(key), {"ETag": etag})

    async def _get_states(self, request: web.Request) -> web.Response:
        state = self.state[request.match_info["store"]]
        keys = orjson.loads(await request.read())["keys"]
        return _json(
            [{"key": key} | ({"data": state.get(key), "etag": tag} if (tag := state.etag(key)) else {}) for key in keys]
        )

    async def _save_state(self, request: web.Request) -> web.Response:
        store = request.match_info["store"]
        answer = web.Response(status=204)
        for item in orjson.loads(await request.read()):  # one that is refused leaves the others
            try:
                _set(self.state[store], item)
            except Refused as refused:
                status = 400 if refused.invalid else 409 if item.get("etag") else 500
                answer = _error(status, "ERR_STATE_SAVE", f"failed saving state in state store {store}: {refused}")
        return answer

    async def _delete_state(self, request: web.Request) -> web.Response:
        store, key = request.match_info["store"], request.match_info["key"]
        try:
            self.state[store].delete(key, request.headers.get("If-Match"))
        except Refused as refused:
            return _error(409, "ERR_STATE_DELETE", f"failed deleting state with key {key}: {refused}")
        return web.Response(status=204)

    async def _set_timer(self, request: web.Request) -> web.Response:
        self.timers[(*_actor(request), request.match_info["name"])] = await request.read()
        return web.Response(status=204)

    async def fire_timers(self) -> None:
        """Every timer goes off, and is gone: as if each were set to fire once."""
        timers, self.timers = self.timers, {}
        for (actor_type, actor_id, name), body in timers.items():
            path = f"actors/{actor_type}/{actor_id}/method/timer/{name}"
            status, answer = await forward(self.app_url)("PUT", path, body)
            assert status == 200, answer

    async def call_actor(self, actor_type: str, actor_id: str, method: str, body: bytes) -> tuple[int, bytes]:
        """Calls a method of an actor that is active here: the app's status and answer."""
        return await forward(self.app_url)("PUT", f"actors/{actor_type}/{actor_id}/method/{method}", body)

    async def end_actor(self, actor_type: str, actor_id: str) -> None:
        """Tells the app that an actor is active here no longer."""
        status, answer = await forward(self.app_url)("DELETE", f"actors/{actor_type}/{actor_id}", b"")
        assert status == 200, answer

    async def deactivate(self, actor_type: str, actor_id: str) -> None:
        """Ends an activation, as placement does when hosts come and go; the next call makes a new one."""
        await self.backend.active.pop((actor_type, actor_id)).end_actor(actor_type, actor_id)

    def _active(self, actor_type: str) -> int:
        return sum(host is self and kind == actor_type for (kind, _), host in self.backend.active.items())

    def _is_active(self, request: web.Request) -> bool:
        return self.backend.active.get(_actor(request)) is self

    async def _get_actor_state(self, request: web.Request) -> web.Response:
        if not self._is_active(request):
            return _error(400, "ERR_ACTOR_INSTANCE_MISSING", "actor instance is missing")
        state, key = self.actor_state[_actor(request)], request.match_info["key"]
        return web.Response(status=204) if state.etag(key) is None else _json(state.get(key))

    async def _save_actor_state(self, request: web.Request) -> web.Response:
        if not self._is_active(request):
            return _error(400, "ERR_ACTOR_INSTANCE_MISSING", "actor instance is missing")
        state = self.actor_state[_actor(request)]
        refusals = []
        for operation in orjson.loads(await request.read()):
            item = operation["request"]
            if operation["operation"] == "delete":
                state.delete(item["key"])
                continue
            try:
                _set(state, item | {"options": {}})  # it does not pass them on to the component
            except Refused as refused:  # the others are written all the same: Redis rolls nothing back
                refusals.append(str(refused))
        if refusals:
            return _error(500, "ERR_ACTOR_STATE_TRANSACTION_SAVE", refusals[0])
        return web.Response(status=204)

    async def _invoke_actor(self, request: web.Request) -> web.Response:
        actor_type, actor_id = _actor(request)
        body = await request.read()
        hosts = self.backend.hosts
        if not hosts:
            return _error(404, "ERR_ACTOR_NO_ADDRESS", f"did not find address for actor '{actor_type}||{actor_id}'")
        host = self.backend.active.setdefault((actor_type, actor_id), self if self in hosts else hosts[0])
        async with host._actor_locks[actor_type, actor_id]:
            status, answer = await host.call_actor(actor_type, actor_id, request.match_info["method"], body)
        if status != 200:
            message = f"error invoke actor method: {answer.decode(errors='replace')}"
            return _error(500, "ERR_ACTOR_INVOKE_METHOD", message)
        return web.Response(body=answer, content_type="application/json")

    async def _invoke(self, request: web.Request) -> web.Response:
        app_id = request.match_info["app_id"]
        service = self.services.get(app_id)
        if service is None:
            message = f"failed to invoke, id: {app_id}, err: failed to resolve address"
            return _error(500, "ERR_DIRECT_INVOKE", message)
        path = request.raw_path.split("/method/", 1)[1]
        status, answer = await service(request.method, path, await request.read())
        return web.Response(status=status, body=answer, content_type="application/json")


def _set(state: State, item: dict[str, Any]) -> None:
    ttl = item.get("metadata", {}).get("ttlInSeconds")
    concurrency = item.get("options", {}).get("concurrency", "")
    state.set(item["key"], item["value"], item.get("etag"), concurrency, None if ttl is None else int(ttl))


def _actor(request: web.Request) -> tuple[str, str]:
    return request.match_info["type"], request.match_info["id"]


def _json(value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), headers=headers, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps({"errorCode": code, "message": message}), content_type="application/json"
    )
