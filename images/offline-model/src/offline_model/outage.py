"""Failures that are asked for while it runs: what a model does to those who call it when it is not well."""

import asyncio
import time
from typing import Literal

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send


class Asked(BaseModel):
    """The body of ``POST /faults``. What was asked for before is over; ``seconds: 0`` ends it."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["hang", "refuse", "break"]
    """No answer until it is over; 429; half of each answer, then the connection ends."""
    seconds: float = Field(ge=0, le=600)


class Outage:
    """What was asked for, until it is over."""

    def __init__(self) -> None:
        self._kind = ""
        self._changed = asyncio.Event()
        self._until = 0.0

    def begin(self, asked: Asked) -> None:
        """It fails from now on, as asked."""
        self._kind, self._until = asked.kind, time.monotonic() + asked.seconds
        self._changed.set()
        self._changed = asyncio.Event()

    def is_now(self, kind: str) -> bool:
        """Whether it fails in this way."""
        return self._kind == kind and time.monotonic() < self._until

    async def hang(self) -> None:
        """Returns when it does not hang."""
        while self.is_now("hang"):
            try:
                async with asyncio.timeout(self._until - time.monotonic()):
                    await self._changed.wait()
            except TimeoutError:
                return


class Half(Response):
    """The first half of a body; then the server ends the connection, because the rest does not come."""

    def __init__(self, whole: bytes, media_type: str) -> None:
        super().__init__(whole, media_type=media_type)  # its Content-Length is that of the whole
        self._half = whole[: len(whole) // 2]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's own
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self._half, "more_body": True})
