"""JSON logs on standard output: one line a request, never a user's text, id or key.

Ids of users and turns appear as hashes, so that lines of one user can be put together without naming them. A session
id is shown: it names a conversation. The trace id is that of the W3C ``traceparent``, taken from the request or made
here and handed on to Dapr, so the lines of one turn can be found in the logs of all services and sidecars.
"""

import hashlib
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.orjson import OrjsonFormatter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The W3C trace context of the request at hand, handed on to Dapr."""


def trace_id() -> str | None:
    """The id of the trace at hand, for a line of the log."""
    parent = traceparent.get()
    return parent.split("-")[1] if parent else None


def begin_trace() -> str:
    """Begins a trace; its ``traceparent``. Also for work that no request waits for."""
    parent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"  # not sampled: Dapr's own rate decides
    traceparent.set(parent)
    return parent


_request: ContextVar[dict[str, Any] | None] = ContextVar("request_log", default=None)
_log = logging.getLogger("access")

TRACE_ID: Final = "Trace-Id"
"""The header of an answer that names its request's trace: what to look for in the logs."""

_TRACE_ID: Final = TRACE_ID.lower().encode()
_PARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""A ``traceparent`` as W3C has it: any other text of a client's has no place in a log, or in a request to a sidecar."""

QUIET = ("/livez", "/readyz", "/healthz", "/dapr/", "/actors/")
"""Paths that the kubelet and the sidecar call all the time: logged only where the level is DEBUG."""


def configure(level: str) -> None:
    """Sends every log record to standard output as one JSON object a line."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        OrjsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").disabled = True
    # Their INFO lines name hosts and bodies of every call.
    for name in ("openai.agents", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def pseudonym(client_id: str) -> str:
    """An id that a client chose as logs show it: 12 hex digits of its SHA-256."""
    return hashlib.sha256(client_id.encode()).hexdigest()[:12]


def annotate(*, session: str | None = None, **ids: str) -> None:
    """Adds a session id, and the pseudonyms of others, to the line of the request at hand, if there is one."""
    line = _request.get()
    if line is not None:
        line.update({name: pseudonym(client_id) for name, client_id in ids.items()})
        if session is not None:
            line["session"] = session


class RequestLog:
    """Writes the line of each request, and carries its trace context."""

    def __init__(self, app: ASGIApp, relayed: str | None = None) -> None:
        """``relayed``: a header of requests that another process of the service has got first, and writes a line of."""
        self._app = app
        self._relayed = relayed.lower().encode() if relayed else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
        if parent is None or not _PARENT.fullmatch(parent):
            parent = begin_trace()
        else:
            traceparent.set(parent)
        trace_id = parent[3:35]
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_TRACE_ID, trace_id.encode())]
            await send(message)

        quiet = scope["path"].startswith(QUIET) or any(name == self._relayed for name, _ in scope["headers"])
        level = logging.DEBUG if quiet else logging.INFO
        if not _log.isEnabledFor(level):
            await self._app(scope, receive, watched)
            return
        line: dict[str, Any] = {}
        _request.set(line)
        start = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            # The route's template, not the path: paths carry user ids.
            route = getattr(scope.get("route"), "path", "-")
            line |= {
                "method": scope["method"],
                "route": route,
                "status": status,
                "duration_ms": round((time.perf_counter() - start) * 1000, 1),
                "trace_id": trace_id,
            }
            _log.log(level, "request", extra=line)
