"""What came back for a request, and how it is counted."""

import json
import time
from typing import Any, Final, NamedTuple

from locust.contrib.fasthttp import LocustBadStatusCode, ResponseContextManager
from locust.env import Environment
from locust.exception import CatchResponseError

CONNECT_SECONDS: Final = 5.0
"""A connection that takes longer leads to an address where nobody is any more."""


class Answer(NamedTuple):
    """An answer that has been read."""

    status: int
    """0: none came."""
    body: Any
    """Its JSON; ``None`` where it is none."""
    error: str
    """What is wrong with it, alike for all that fail alike; empty for a 200 with JSON."""
    kind: str
    """What the service calls the problem: ``type`` of chat-service, ``errorCode`` of Dapr."""
    retry_after: float | None
    """Seconds after which it asks to be tried again."""
    size: int
    """Bytes."""


def read(response: ResponseContextManager) -> Answer:
    """Reads a response of ``FastHttpSession.request(..., catch_response=True)``."""
    broken = response.request_meta["exception"]
    if broken is not None and not isinstance(broken, LocustBadStatusCode):
        cause = getattr(broken, "original", None) or broken
        return Answer(0, None, f"no answer: {type(cause).__name__}", "", None, 0)
    status, content = response.status_code, response.content or b""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if status == 200:
        return Answer(200, body, "" if body is not None else "200 without JSON", "", None, len(content))
    named = body if isinstance(body, dict) else {}
    kind = str(named.get("type") or named.get("errorCode") or "")
    return Answer(status, body, f"{status} {kind}".strip(), kind, _seconds(response), len(content))


def report(
    environment: Environment, request_type: str, name: str, began: float, *, size: int = 0, error: str = ""
) -> None:
    """Counts a request in Locust's statistics, with the time since ``began`` (``time.perf_counter()``)."""
    seconds = time.perf_counter() - began
    environment.events.request.fire(
        request_type=request_type,
        name=name,
        response_time=seconds * 1000,
        response_length=size,
        response=None,
        context={},
        exception=CatchResponseError(error) if error else None,
        start_time=time.time() - seconds,
        url=None,
    )


def _seconds(response: ResponseContextManager) -> float | None:
    # The other form that HTTP allows, a date, is none that our services send.
    value = response.headers.get("retry-after") if response.headers else None
    return float(value) if isinstance(value, str) and value.isdecimal() else None
