"""A request on its way to the process where its user's session lives.

A turn runs where its session is active: begin, complete, the line and the wake-up are then calls within one process,
and one hop from pod to pod takes the place of six through sidecars. Where that process can't be reached directly, or is
going, the request is handled here, with the session called through Dapr.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from daca_common.backoff import Backoff
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.logs import traceparent

from chat_service.open_turns import DRAINING
from chat_service.protocol import NOTHING
from chat_service.sessions import LOCATE, Sessions, patience
from chat_service.turn import unreachable

RELAYED: Final = "Daca-Relayed"
"""A header of requests that come from another process. They are answered 421 where the session is not: no rings."""

ARRIVED: Final = "Daca-Arrived-At"
"""When a relayed message reached the service, in Unix seconds."""

TURN: Final = "Daca-Turn-Id"
"""The id that was made for a relayed message whose client gave it none."""

KNOWN: Final = 50_000
"""Users whose whereabouts are remembered."""

CONNECT_SECONDS: Final = 0.5
ATTEMPTS: Final = 3
"""Tries of one address that does not answer, before the session is called through Dapr."""

ANSWERED: Final = ("content-type", "retry-after", "idempotency-replayed", "idempotency-key", "cache-control")
"""Headers of an answer that are handed on."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it goes to another process; ``path`` is quoted."""

    user_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """The answer. ``body`` is whole, or still comes in ``stream``."""

    status: int
    headers: dict[str, str]
    body: bytes
    stream: aiohttp.ClientResponse | None

    async def chunks(self) -> AsyncIterator[bytes]:
        """A streamed body, as it comes; it may break off."""
        if self.stream is None:
            yield self.body
            return
        try:
            async for chunk in self.stream.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _log.info("a relayed stream broke off", extra={"error": type(error).__name__})
        finally:
            self.stream.close()


@dataclass(frozen=True, slots=True)
class _Whereabouts:
    address: str
    found_at: float


class Relay:
    """Hands requests on to the processes where the sessions live."""

    def __init__(self, sessions: Sessions, address: str, *, wait_seconds: float, silent_seconds: float) -> None:
        """``address`` is this process's own. A session is looked for ``wait_seconds``; a process that says nothing for
        ``silent_seconds`` is taken for dead."""
        self._sessions = sessions
        self._address = address
        self._wait_seconds = wait_seconds
        self._silent_seconds = silent_seconds
        self._known: OrderedDict[str, _Whereabouts] = OrderedDict()
        self._left: dict[str, float] = {}
        """Addresses of processes that go, or did not answer, and when that was found. All whose sessions were there are
        looked for again, rather than each of them waiting for it."""
        self._client: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Closes the pooled connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def send(self, request: Outgoing) -> Incoming | None:
        """The answer of the process where the user's session lives; ``None`` where it is to be handled here.

        Raises:
            Problem: 503, the session can't be found.
        """
        deadline = time.monotonic() + self._wait_seconds
        backoff, time_outs = Backoff(0.05, 0.5), patience()
        failures = 0
        while True:
            try:
                address = await self._find(request.user_id, time_outs)
            except (DaprError, DaprUnavailable) as error:
                if time.monotonic() >= deadline:
                    raise unreachable(error) from error
                await asyncio.sleep(backoff.next())
                continue
            if address is None:
                return None
            try:
                answer = await self._send(address, request)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                _log.info("a relayed request broke off", extra={"error": type(error).__name__})
                failures += 1
                answer = None
                self._left[address] = time.monotonic()
            if answer is not None and DRAINING in answer.headers:
                self._left[address] = time.monotonic()
                return None
            if answer is not None and answer.status != 421:
                return answer
            self._known.pop(request.user_id, None)
            if failures >= ATTEMPTS or time.monotonic() >= deadline:
                return None
            await asyncio.sleep(backoff.next())

    async def _find(self, user_id: str, time_outs: Backoff) -> str | None:
        """Where a user's session lives; ``None``: here."""
        if self._sessions.here(user_id) is not None:
            return None
        known = self._known.get(user_id)
        if known is not None and known.found_at > self._left.get(known.address, 0.0):
            self._known.move_to_end(user_id)
            return known.address
        found_at = time.monotonic()
        address = (await self._sessions.call(user_id, LOCATE, NOTHING, seconds=time_outs.next())).address
        if address == self._address:
            return None
        self._known[user_id] = _Whereabouts(address, found_at)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return address

    async def _send(self, address: str, request: Outgoing) -> Incoming:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._silent_seconds),
                auto_decompress=False,
            )
        headers = {**request.headers, RELAYED: "true"}
        if (parent := traceparent.get()) is not None:
            headers["traceparent"] = parent
        response = await self._client.request(
            request.method, f"http://{address}{request.path}", data=request.body, headers=headers
        )
        told = {name: response.headers[name] for name in (*ANSWERED, DRAINING) if name in response.headers}
        if response.content_type == "text/event-stream":
            return Incoming(response.status, told, b"", response)
        async with response:
            return Incoming(response.status, told, await response.read(), None)
