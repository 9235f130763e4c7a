"""One pooled client for the sidecar's HTTP API.

The Dapr SDK opens a TCP connection for each HTTP call and waits for the sidecar in its constructor; this client shares
one session and connects when first used. Routes: https://docs.dapr.io/reference/api/
"""

import asyncio
import io
import json
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from daca_common.logs import traceparent

JSON = "application/json"
CLOUD_EVENT = "application/cloudevents+json"
LARGE = 1024 * 1024
"""Bytes."""
CREATE = "-1"
"""The ETag that writes a key only if it does not exist. Redis counts ETags from 1 and takes "0" for "do not check"."""


FOR_EVER = -1
"""The TTL that takes away the one that a key has.
https://docs.dapr.io/developing-applications/building-blocks/state-management/state-store-ttl/"""


class DaprError(Exception):
    """The sidecar, or what it called, answered with an error.

    As text it is status and code alone, which is what logs may show: Dapr's messages name state keys, and these hold
    user ids.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}".rstrip())
        self.status = status
        """The HTTP status."""
        self.code = code
        """Dapr's ``errorCode``; empty where the answer carried none."""
        self.message = message

    @property
    def store_full(self) -> bool:
        """Whether Redis has no memory for another write; it still answers reads."""
        return "OOM command not allowed" in self.message

    @property
    def mismatch(self) -> bool:
        """Whether an actor's state was refused for its ETag: Dapr makes a plain 500 of it, in Redis' words."""
        return "failed to set key" in self.message


class DaprUnavailable(Exception):
    """No answer: refused, broken off or timed out. Whether the call took effect is unknown."""


class Answer(NamedTuple):
    """A 2xx answer: ``body`` as bytes, ``etag`` where the state API sent one."""

    status: int
    body: bytes
    etag: str | None

    def json(self) -> Any:
        """The body as JSON; ``None`` for an empty one (204, or a state that does not exist).

        Raises:
            DaprError: it is not JSON, so it is not from whom it should be.
        """
        try:
            return orjson.loads(self.body) if self.body else None
        except orjson.JSONDecodeError as error:
            raise DaprError(self.status, "NOT_JSON", "the answer is not JSON") from error


class StateWrite(NamedTuple):
    """A key of the state API and what it is to hold.

    With an ETag only if it still has that (:data:`CREATE`: if it does not exist). With ``ttl_seconds`` the store
    forgets it after that time; without, it keeps it, also where it had a TTL.
    """

    key: str
    value: object
    etag: str | None
    ttl_seconds: int | None = None

    def dump(self) -> dict[str, Any]:
        """An item of the state API's request."""
        item: dict[str, Any] = {"key": self.key, "value": self.value} | _ttl(self.ttl_seconds)
        if self.etag is not None:
            item |= {"etag": self.etag, "options": {"concurrency": "first-write"}}
        return item


class DaprClient:
    """The sidecar's HTTP API: actors, state, publish, secrets, invocation, metadata.

    Every method raises :class:`DaprError` for an error answer and :class:`DaprUnavailable` for none.
    """

    def __init__(
        self, http_port: int, *, api_token: str | None = None, timeout_seconds: float = 30.0, connections: int = 256
    ) -> None:
        self._base = f"http://127.0.0.1:{http_port}"
        self._headers = {"dapr-api-token": api_token} if api_token else {}
        self._timeout = timeout_seconds
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Sends one request to ``path``, which is already quoted and starts with ``/v1.0``."""
        if self._session is None:  # made here because a session belongs to the running event loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60),
                headers=self._headers,
            )
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = content_type
        if (parent := traceparent.get()) is not None:
            sent["traceparent"] = parent
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._timeout)
        try:
            async with self._session.request(
                method, URL(self._base + path, encoded=True), data=_sendable(body), headers=sent, timeout=timeout
            ) as response:
                content = await response.read()
                if response.status >= 300:
                    raise _error(response.status, content)
                return Answer(response.status, content, response.headers.get("ETag"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DaprUnavailable(f"{method} {path.split('/')[2]}: {str(error) or type(error).__name__}") from error

    async def invoke_actor(
        self, actor_type: str, actor_id: str, method: str, arguments: object, *, timeout_seconds: float | None = None
    ) -> Any:
        """Calls an actor's method with one JSON argument; its JSON result."""
        path = f"/v1.0/actors/{actor_type}/{_quoted(actor_id)}/method/{method}"
        answer = await self.request("POST", path, orjson.dumps(arguments), timeout_seconds=timeout_seconds)
        return answer.json()

    async def get_actor_state(self, actor_type: str, actor_id: str, key: str) -> Any:
        """The value under ``key`` of an actor that is active behind this sidecar; ``None`` where there is none."""
        return (await self.request("GET", f"/v1.0/actors/{actor_type}/{_quoted(actor_id)}/state/{_quoted(key)}")).json()

    async def put_actor_state(
        self,
        actor_type: str,
        actor_id: str,
        key: str,
        value: object,
        etag: str,
        *,
        ttl_seconds: int | None = None,
        beside: Mapping[str, object] | None = None,
    ) -> None:
        """Writes one key, if its ETag still is ``etag`` (:data:`CREATE`: if the key does not exist).

        ``beside`` are keys that are written in the same request, whatever they hold, and even where ``key`` is refused.
        For ``ttl_seconds`` Dapr's feature ``ActorStateTTL`` must be on; :data:`FOR_EVER` takes a TTL away.

        Dapr answers a mismatch with a plain 500, so every :class:`DaprError` here may be one: read again, then judge.
        """
        request = {"key": key, "value": value, "etag": etag, "options": {"concurrency": "first-write"}}
        others = [{"key": name, "value": other} for name, other in (beside or {}).items()]
        upserts = [request | _ttl(ttl_seconds), *others]
        operations = [{"operation": "upsert", "request": upsert} for upsert in upserts]
        await self._change_actor_state(actor_type, actor_id, operations)

    async def replace_actor_state(
        self, actor_type: str, actor_id: str, key: str, value: object, *, ttl_seconds: int | None = None
    ) -> None:
        """Removes a key and makes it anew in one transaction, whatever its ETag was; that is then "1"."""
        upsert = {"key": key, "value": value, "etag": CREATE} | _ttl(ttl_seconds)
        operations = [{"operation": "delete", "request": {"key": key}}, {"operation": "upsert", "request": upsert}]
        await self._change_actor_state(actor_type, actor_id, operations)

    async def _change_actor_state(self, actor_type: str, actor_id: str, operations: Sequence[object]) -> None:
        path = f"/v1.0/actors/{actor_type}/{_quoted(actor_id)}/state"
        await self.request("PUT", path, orjson.dumps(operations))

    async def get_state(self, store: str, key: str) -> tuple[Any, str | None]:
        """Value and ETag of a key; ``(None, None)`` where there is none."""
        answer = await self.request("GET", f"/v1.0/state/{store}/{_quoted(key)}?consistency=strong")
        return (answer.json(), answer.etag) if answer.body else (None, None)

    async def get_states(self, store: str, keys: Sequence[str]) -> list[tuple[Any, str | None]]:
        """Values and ETags of keys, in their order; ``(None, None)`` where there is none."""
        body = orjson.dumps({"keys": list(keys)})
        answer = (await self.request("POST", f"/v1.0/state/{store}/bulk", body)).json()
        found = {item["key"]: item for item in answer}
        for item in found.values():
            if error := item.get("error"):
                raise DaprError(500, "ERR_STATE_GET", str(error))
        return [
            (item["data"], item["etag"]) if (item := found.get(key)) and item.get("etag") else (None, None)
            for key in keys
        ]

    async def save_state(
        self, store: str, key: str, value: object, etag: str | None, *, ttl_seconds: int | None = None
    ) -> bool:
        """Writes a key if its ETag still is ``etag`` (``None``: if it does not exist); see :meth:`save_states`."""
        return await self.save_states(store, [StateWrite(key, value, etag or CREATE, ttl_seconds)])

    async def save_states(self, store: str, writes: Sequence["StateWrite"]) -> bool:
        """Writes each key if its ETag still is the one given; False if another wrote one of them.

        The others are written all the same, and which one was refused is not told. False also where Redis did not
        answer the sidecar, which calls that a mismatch: read again, then judge.
        """
        try:
            await self.request("POST", f"/v1.0/state/{store}", orjson.dumps([write.dump() for write in writes]))
        except DaprError as error:
            if error.status == 409 and not error.store_full:
                return False
            raise
        return True

    async def put_states(self, store: str, values: Mapping[str, object], *, ttl_seconds: int | None = None) -> None:
        """Writes several keys, whatever is there; for values that are the same whoever writes them."""
        items = [StateWrite(key, value, None, ttl_seconds).dump() for key, value in values.items()]
        await self.request("POST", f"/v1.0/state/{store}", orjson.dumps(items))

    async def delete_state(self, store: str, key: str, etag: str | None = None) -> bool:
        """Removes a key; with ``etag`` only if that still is its ETag, else False. A missing key is removed already."""
        headers = {} if etag is None else {"If-Match": etag}
        path = f"/v1.0/state/{store}/{_quoted(key)}?concurrency=first-write"
        try:
            await self.request("DELETE", path, headers=headers)
        except DaprError as error:
            if error.status == 409 and not error.store_full:
                return False
            raise
        return True

    async def publish(
        self, pubsub: str, topic: str, cloud_event: Mapping[str, object], *, timeout_seconds: float | None = None
    ) -> None:
        """Publishes an event that is already a CloudEvent, so that its ``id`` stays the same when it is sent again."""
        path, body = f"/v1.0/publish/{pubsub}/{topic}", orjson.dumps(cloud_event)
        await self.request("POST", path, body, content_type=CLOUD_EVENT, timeout_seconds=timeout_seconds)

    async def get_secret(self, store: str, name: str) -> dict[str, str]:
        """The keys and values of a secret; empty where the store has none of that name."""
        try:
            return dict((await self.request("GET", f"/v1.0/secrets/{store}/{_quoted(name)}")).json() or {})
        except DaprError as error:
            if error.status == 404 or "not found" in error.message:
                return {}
            raise

    async def invoke_service(
        self, app_id: str, http_method: str, path: str, body: object = None, *, timeout_seconds: float | None = None
    ) -> Any:
        """Calls ``path`` (quoted, no leading slash) of another service; its JSON answer."""
        data = None if body is None else orjson.dumps(body)
        path = f"/v1.0/invoke/{app_id}/method/{path}"
        return (await self.request(http_method, path, data, timeout_seconds=timeout_seconds)).json()

    async def metadata(self) -> dict[str, Any]:
        """What the sidecar says of itself: components, subscriptions, actor runtime."""
        return dict((await self.request("GET", "/v1.0/metadata", timeout_seconds=3)).json())

    async def gone(self, within_seconds: float = 15.0) -> None:
        """Returns once the sidecar answers no more, or it seems to stay (only this container was asked to go).

        It calls its app until it ends, and that takes a few failed health checks: by default more than those last.
        """
        end = time.monotonic() + within_seconds
        while time.monotonic() < end:
            try:
                await self.request("GET", "/v1.0/healthz/outbound", timeout_seconds=1)
            except DaprError:
                pass  # an unhealthy sidecar is there all the same
            except DaprUnavailable:
                return
            await asyncio.sleep(0.2)


def _ttl(seconds: int | None) -> dict[str, Any]:
    return {"metadata": {"ttlInSeconds": str(seconds)}} if seconds is not None else {}


def _sendable(body: bytes | None) -> bytes | io.BytesIO | None:
    """A large body in a form that aiohttp sends a piece at a time, so that other requests go on meanwhile."""
    return io.BytesIO(body) if body is not None and len(body) >= LARGE else body


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _error(status: int, body: bytes) -> DaprError:
    try:
        told = json.loads(body)
        return DaprError(status, str(told.get("errorCode", "")), str(told.get("message", told)))
    except (ValueError, AttributeError):
        return DaprError(status, "", body[:500].decode("utf-8", "replace"))
