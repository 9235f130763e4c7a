"""Errors as problem+json (RFC 9457), each naming the field at fault and the mend."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, TypedDict

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daca_common import problem_types
from daca_common.problem_types import PREFIX, PROBLEM_TYPES

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

Location = Literal["body", "header", "query", "path"]

_SCHEMA: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "description": "Leads to what the type means."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and how to mend it."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "location", "detail"],
                "properties": {
                    "field": {"type": "string"},
                    "location": {"enum": ["body", "header", "query", "path"]},
                    "detail": {"type": "string"},
                },
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
    """One field that is wrong: ``field`` as a dotted path (``metadata.session_id``; ``body`` is the whole body) or as
    the name of a header or parameter, ``location`` where it is, ``detail`` as a sentence."""

    field: str
    location: Location
    detail: str


class Problem(HTTPException):
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
        """``kind`` becomes the problem's ``type``: ``/problems/<name>`` of :data:`PROBLEM_TYPES`; without one, all that
        there is to say is its status."""
        super().__init__(status, detail, dict(headers or {}))
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = list(errors)
        self.headers: dict[str, str] = dict(headers or {})

    def __str__(self) -> str:
        return self.detail

    def body(self) -> bytes:
        """The problem as JSON."""
        known = PROBLEM_TYPES.get(self.kind.removeprefix(PREFIX))
        body: dict[str, Any] = {
            "type": self.kind,
            "title": known.title if known else HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return orjson.dumps(body)

    def response(self) -> Response:
        """The problem as an HTTP answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


def unexpected() -> Problem:
    """What is answered for a fault of ours: nothing of it."""
    detail = "An unexpected error; the service's log has it under this request's trace id."
    return Problem(500, detail, kind="/problems/unexpected")


class Unexpected:
    """Answers 500 for what nobody expected, wherever it was raised.

    Starlette's own handler is outside all middleware, so its answer would lack CORS' headers: this is inside of CORS
    and outside of all else.
    """

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
            await unexpected().response()(scope, receive, send)


def install(app: FastAPI) -> None:
    """Makes every error of ``app`` a problem+json answer: ours, validation's and the router's. Serves their types."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)  # noqa: S101 - registered for Problem only
        return error.response()

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        errors = [_field_error(item["loc"], item["msg"]) for item in error.errors()]
        return invalid(errors).response()

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        match error.status_code:
            case 404:
                detail = "There is nothing at this path; /docs lists what there is."
                problem = Problem(404, detail, kind="/problems/not-found")
            case 405:
                allowed = ", ".join(sorted(_methods(app.routes, request.scope)))
                detail = f"This path does not take {request.method}, but {allowed}."
                problem = Problem(405, detail, kind="/problems/method-not-allowed", headers={"Allow": allowed})
            case status:
                problem = Problem(status, str(error.detail), headers=error.headers)
        return problem.response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.include_router(problem_types.router())


def invalid(errors: Sequence[FieldError]) -> Problem:
    """The answer to fields that are wrong: 422."""
    summary = "; ".join(f"{item['field']}: {item['detail']}" for item in errors)
    return Problem(422, summary, kind="/problems/invalid-field", errors=errors)


def _field_error(location: Sequence[int | str], message: str) -> FieldError:
    """``("body", "metadata", "session_id")`` -> ``metadata.session_id``; the body itself is called ``body``."""
    where: Location
    match location[0]:
        case "header" | "query" | "path" as where:
            pass
        case _:
            where = "body"
    field = ".".join(str(part) for part in location[1:])
    return {"field": field or where, "location": where, "detail": message}


def _methods(routes: Sequence[BaseRoute], scope: Scope) -> set[str]:
    """What a path takes; Starlette's own answer names the methods of the first route only."""
    found: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found | {"HEAD"} if "GET" in found else found


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
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared) > self._limit:
            await self._refused().response()(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limit:
                raise self._refused()
            return message

        await self._app(scope, counted, send)

    def _refused(self) -> Problem:
        detail = f"The body is larger than {self._limit:,} bytes. Send it in parts."
        errors: list[FieldError] = [{"field": "body", "location": "body", "detail": detail}]
        return Problem(413, detail, kind="/problems/too-large", errors=errors)


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
