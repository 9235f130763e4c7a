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


class Health:
    """The state behind the probes. ``ready`` latches: a later hiccup of placement must not empty the Service."""

    def __init__(self) -> None:
        self.ready = False
        self.draining = False
        self.drained = False
        self.open_requests = 0
        self.last_request_at = time.monotonic()

    async def quiet(self) -> None:
        """Gives up readiness; returns when no request is open and none has come for :data:`QUIET_SECONDS`."""
        self.draining = True
        self.last_request_at = time.monotonic()
        # A time without requests is waited for, which no event tells.
        while self.open_requests or time.monotonic() - self.last_request_at < QUIET_SECONDS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

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

        health.open_requests += 1
        health.last_request_at = time.monotonic()
        try:
            await self._app(scope, receive, closing)
        finally:
            health.open_requests -= 1
