"""Serving an application on a loopback port, for clients that want a real one."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import httpx2
import uvicorn
from starlette.types import ASGIApp

Start = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]
"""Starts a service, with settings of its own; a client of it."""


def free_port() -> int:
    """A port that nobody has, and none of those that the kernel gives to connections (from 32768 on)."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are pytest's

    async def main_loop(self) -> None:
        await self.stop.wait()  # uvicorn's own looks ten times a second


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, port: int = 0) -> AsyncIterator[str]:
    """Serves ``app``, its lifespan included, until the block ends; the URL it is served at. ``port`` 0 is any."""
    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="on"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            raise RuntimeError("the application did not start") from task.exception()
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop.set()
        await task
