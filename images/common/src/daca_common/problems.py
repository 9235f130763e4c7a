"""Errors as problem+json (RFC 9457), each naming the field at fault and the mend."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypedDict

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "Tells problems of one status apart."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and how to mend it."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": "A problem (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
    for status in ("4XX", "5XX")
}
"""For ``FastAPI(responses=...)``: the API's documentation shows the errors as they are sent."""


class FieldError(TypedDict):
    """One field that is wrong: ``field`` as a dotted path (``metadata.session_id``), ``detail`` as a sentence."""

    field: str
    detail: str


class Problem(Exception):
    """An answer that is an error. Raised anywhere below a route, sent as ``application/problem+json``."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "about:blank",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``kind`` becomes the problem's ``type``: a URI reference that tells problems of one status apart."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The problem as an HTTP answer."""
        body: dict[str, Any] = {
            "type": self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return Response(orjson.dumps(body), self.status, self.headers, MEDIA_TYPE)


UNEXPECTED: Final = "An unexpected error; the service's log has it under this request's trace id."


class _Unexpected:
    """Answers 500 for what nobody expected. Starlette's own handler is outside all middleware, CORS' too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http" or started:
                raise
            _log.exception("unexpected error")
            await Problem(500, UNEXPECTED).response()(scope, receive, send)


def install(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem+json answer: ours, validation's, the router's and what nobody expected.

    Middleware that is added later is around all of it.
    """

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for Problem only
        return error.response()

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        found = error.errors()
        if any(item["type"] == "json_invalid" for item in found):
            return Problem(400, "The body is not valid JSON.", kind="/problems/invalid-json").response()
        errors: list[FieldError] = [{"field": _field(item["loc"]), "detail": item["msg"]} for item in found]
        summary = "; ".join(f"{item['field']}: {item['detail']}" for item in errors)
        return Problem(422, summary, kind="/problems/invalid-field", errors=errors).response()

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return Problem(error.status_code, str(error.detail), headers=error.headers).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_middleware(_Unexpected)


def _field(location: Sequence[int | str]) -> str:
    """``("body", "metadata", "session_id")`` -> ``metadata.session_id``; the body itself is called ``body``."""
    parts = [str(part) for part in location]
    return ".".join(parts[1:]) if len(parts) > 1 else parts[0]


class BodyLimit:
    """Answers 413 to a body over ``limit`` bytes without reading it all, whether or not its length is declared.

    FastAPI's own ``max_body_size`` does the same in plain text. ``exempt`` is the prefix, or prefixes, of what only the
    sidecar calls: its bodies are of our own making.
    """

    def __init__(self, app: ASGIApp, limit: int, exempt: str | tuple[str, ...]) -> None:
        self._app = app
        self._limit = limit
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        refused = Problem(413, f"The body is larger than {self._limit:,} bytes.", kind="/problems/too-large")
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self._limit:
            await refused.response()(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                # FastAPI makes a 400 of what fails while it reads a body, except for an HTTPException.
                raise HTTPException(413, refused.detail)
            return message

        await self._app(scope, counted, send)


async def limited_body(request: Request, limit: int) -> bytes | None:
    """The body, or ``None`` where it is larger than ``limit`` bytes: for a route with an answer of its own to that."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
