"""The service: the chat API's routes, and errors in the shape that its clients read."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

from daca_common import logs, server
from daca_common.health import Health, OpenRequests
from daca_common.logs import RequestLog
from daca_common.problems import limited_body
from daca_common.settings import load
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

from offline_model.chat_api import MODEL, ApiError, ChatRequest, Completion, models
from offline_model.outage import Asked, Half, Outage
from offline_model.settings import Settings

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Room for a window of the longest messages, escaped."""

JSON = "application/json"


class Faults:
    """The share of completions that are to fail, spread evenly over the requests in the order they come."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._requests = 0

    def next_fails(self) -> bool:
        """Whether the next request fails: at 0.25 the fourth, the eighth and so on."""
        before, self._requests = self._requests, self._requests + 1
        # Rounded, or ten times 0.1 would stay below 1.
        return int(round(self._requests * self._rate, 6)) > int(round(before * self._rate, 6))


class ChatCompletions:
    """``POST /v1/chat/completions``."""

    def __init__(self, settings: Settings, outage: Outage) -> None:
        self._latency_seconds = settings.latency_ms / 1000
        self._faults = Faults(settings.error_rate)
        self._outage = outage

    async def answer(self, request: Request) -> Response:
        """Answers whole or as server-sent events."""
        body = await limited_body(request, MAX_BODY_BYTES)
        if body is None:
            raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.")
        asked = ChatRequest.parse(body)
        if self._latency_seconds:
            await asyncio.sleep(self._latency_seconds)
        if self._faults.next_fails():
            raise ApiError(500, "An error on purpose: ERROR_RATE is set.", kind="server_error", code="error_rate")
        await self._outage.hang()
        if self._outage.is_now("refuse"):
            raise ApiError(429, "Too many requests, on purpose.", kind="requests", code="rate_limit_exceeded")
        completion = Completion.of(asked)
        if self._outage.is_now("break"):
            if asked.stream:
                return Half(b"".join(completion.events()), "text/event-stream")
            return Half(completion.body(), JSON)
        if asked.stream:
            return StreamingResponse(_sent(completion), media_type="text/event-stream")
        return Response(completion.body(), media_type=JSON)


def create_app(settings: Settings, health: Health) -> FastAPI:
    """The application; its probes answer from ``health``."""
    app = FastAPI(title="DACA offline model", docs_url=None, redoc_url=None, openapi_url=None)
    outage = Outage()

    @app.post("/faults")
    async def fail(asked: Asked) -> dict[str, str]:
        """Lets the completions of this process fail for a while."""
        outage.begin(asked)
        return {"message": f"{asked.kind} for {asked.seconds:g} s"}

    # A plain Starlette route: this one is part of every benchmark, and FastAPI's takes twice as long.
    app.add_route("/v1/chat/completions", ChatCompletions(settings, outage).answer, methods=["POST"])
    app.include_router(_router)
    app.include_router(health.router())
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected)
    app.add_middleware(RequestLog)
    app.add_middleware(OpenRequests, health=health)
    health.ready = True  # it depends on nothing
    return app


_router = APIRouter()


@_router.get("/")
async def welcome() -> dict[str, str]:
    """Says what this is."""
    return {
        "message": "Welcome to the DACA offline model! It stands in for a model: no network, no key, and the same "
        "answer to the same question. It speaks the OpenAI chat API at /v1/chat/completions.",
        "model": MODEL,
    }


@_router.get("/v1/models")
async def list_models() -> Response:
    """Lists the one model there is; requests may name any."""
    return Response(models(), media_type=JSON)


async def _sent(completion: Completion) -> AsyncIterator[bytes]:
    for event in completion.events():
        yield event


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for ApiError only
    return Response(error.body, error.status, media_type=JSON)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"There is no {request.url.path}: this server has /v1/chat/completions, /v1/models and /faults."
    else:
        message = str(error.detail)
    return Response(ApiError(error.status_code, message).body, error.status_code, error.headers, JSON)


async def _on_unexpected(_: Request, __: Exception) -> Response:
    body = ApiError(500, "An unexpected error; it is in the log.", kind="server_error").body
    return Response(body, 500, media_type=JSON)


def main() -> None:
    """Runs the offline model with settings from the environment."""
    settings = load(Settings)
    logs.configure(settings.log_level)
    health = Health()
    server.run(create_app(settings, health), settings, health.drain)
