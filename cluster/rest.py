"""HTTP calls of the command line and of the end-to-end tests: one request, one answer, no session."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import Any, Final, NamedTuple

# The services are on this machine or behind a port-forward: a proxy of the environment has no way to them.
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Unreachable(Exception):
    """No answer: refused, broken off or timed out. Whether the request took effect is unknown."""


class Answer(NamedTuple):
    """Any answer, an error status included."""

    status: int
    headers: Message
    """By name, in any case."""
    body: bytes

    def json(self) -> Any:
        """The body as JSON; ``None`` for an empty one.

        Raises:
            ValueError: it is something else.
        """
        return json.loads(self.body) if self.body else None

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


def call(
    method: str,
    url: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = 60.0,
) -> Answer:
    """Sends ``body`` (JSON; bytes go as they are) to ``url``.

    Raises:
        Unreachable: there was no answer.
    """
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - http:// of services of ours
        url, data, {"Content-Type": "application/json", **(headers or {})}, method=method
    )
    try:
        with _OPENER.open(request, timeout=timeout_seconds) as response:
            return Answer(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise Unreachable(f"{method} {url}: {reason}") from error
