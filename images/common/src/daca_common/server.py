"""Runs a service under uvicorn so that a pod's end loses nothing.

Uvicorn closes its socket on SIGTERM at once. A pod that is asked to go still receives requests for a moment (the
Service learns of it later) and its sidecar still calls its actors. So SIGTERM first drains: readiness goes, new work is
refused by the routes, what is open finishes, and only then does the socket close.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daca_common.problems import MEDIA_TYPE, Problem
from daca_common.settings import ServiceSettings

_log = logging.getLogger(__name__)

Drain = Callable[[], Awaitable[None]]
"""Called once on SIGTERM; returns when nothing is open any more. Bounded by ``shutdown_grace_seconds``."""


class HttpProtocol(HttpToolsProtocol):
    """Answers what is not HTTP with a problem, as everything else is answered."""

    def send_400_response(self, msg: str) -> None:
        """Uvicorn's, which answers in plain text."""
        body = Problem(400, msg, kind="/problems/invalid-http").body()
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain: Drain, grace_seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._grace_seconds = grace_seconds
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._draining is None:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._start_draining)
        else:  # a second SIGTERM, or Ctrl-C: at once
            super().handle_exit(sig, frame)

    def _start_draining(self) -> None:
        self._draining = asyncio.ensure_future(self._drain_then_exit())

    async def _drain_then_exit(self) -> None:
        try:
            await asyncio.wait_for(self._drain(), self._grace_seconds)
        except TimeoutError:
            _log.warning("requests still open after the grace period", extra={"grace_seconds": self._grace_seconds})
        finally:
            self.should_exit = True


def run(app: FastAPI, settings: ServiceSettings, drain: Drain) -> None:
    """Serves ``app`` until SIGTERM (drains first), a second SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    with contextlib.suppress(KeyboardInterrupt):  # raised by uvicorn once it has ended for Ctrl-C
        _Server(config, drain, settings.shutdown_grace_seconds).run()
