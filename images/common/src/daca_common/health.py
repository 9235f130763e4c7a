"""Probes. Liveness depends on nothing else; readiness latches and is given up only to drain.

``/livez``: the process answers. ``/readyz``: it may be sent requests. ``/healthz/app``: what the sidecar asks
(``dapr.io/app-health-check-path``); it turns 503 when the last open request is done, which tells a sidecar that blocks
its own shutdown (``dapr.io/block-shutdown-duration``) that it may go.
"""

import asyncio
import time

from fastapi import APIRouter, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES = frozenset({"/livez", "/readyz", "/healthz/app"})

QUIET_SECONDS = 1.0
"""A pod that goes is still sent requests for as long as the Service's end points take to change."""
LONGEST_QUIET_SECONDS = 5.0
"""How long that is waited for. Clients that reach the pod past its Service need not ever stop."""


class Health:
    """The state behind the probes. ``ready`` latches: a later hiccup of placement must not empty the Service."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.drained = False
        self._open: dict[object, float] = {}
        """When the open requests began."""
        self.last_request_at = time.monotonic()

    @property
    def open_requests(self) -> int:
        """How many requests are open."""
        return len(self._open)

    def begun(self) -> object:
        """A request began; what :meth:`ended` wants to know."""
        request = object()
        self._open[request] = self.last_request_at = time.monotonic()
        return request

    def ended(self, request: object) -> None:
        """A request is done."""
        del self._open[request]

    async def quiet(self) -> None:
        """Gives up readiness; returns when no request is open and none has come for :data:`QUIET_SECONDS`.

        Requests that go on coming are waited for no longer than :data:`LONGEST_QUIET_SECONDS`; those that began before
        that are finished.
        """
        self.draining = True
        self.last_request_at = time.monotonic()
        end = self.last_request_at + LONGEST_QUIET_SECONDS
        # A time without requests is waited for, which no event tells.
        while self._is_busy(end):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    def _is_busy(self, end: float) -> bool:
        if any(began < end for began in self._open.values()):
            return True
        now = time.monotonic()
        return now < end and now - self.last_request_at < QUIET_SECONDS

    async def drain(self) -> None:
        """All that a service drains that has nothing open but requests."""
        await self.quiet()
        self.drained = True

    def router(self) -> APIRouter:
        """The three probe routes, hidden from the API's documentation."""
        router = APIRouter(include_in_schema=False)

        @router.get("/livez")
        async def livez() -> dict[str, str]:
            return {"status": "alive"}

        @router.get("/readyz")
        async def readyz(response: Response) -> dict[str, str]:
            if self.draining or not self.ready:
                response.status_code = 503
            return {"status": "draining" if self.draining else "ready" if self.ready else "starting"}

        @router.get("/healthz/app")
        async def app_health(response: Response) -> dict[str, str]:
            if self.drained:
                response.status_code = 503
            return {"status": "drained" if self.drained else "serving"}

        return router


class OpenRequests:
    """Counts the requests that are open, so that a drain can wait for them; probes do not count.

    While the pod drains, every answer asks the client to connect anew: a connection that is kept alive stays with a pod
    that no Service names any more.
    """

    def __init__(self, app: ASGIApp, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        health = self._health

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and health.draining:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        request = health.begun()
        try:
            await self._app(scope, receive, closing)
        finally:
            health.ended(request)
