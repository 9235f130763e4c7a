"""How soon a turn tells its first token, to one client that reads a stream."""

import http.client
import time
from collections.abc import Iterator
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import orjson

from bench.wrk import check_address
from cluster.errors import CommandError

TURNS: Final = 30
TIMEOUT_SECONDS: Final = 30


def measure(url: str, user: str) -> float:
    """Milliseconds, in the middle of :data:`TURNS` turns one after the other.

    Raises:
        CommandError: a stream has no token.
    """
    check_address(url)
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    try:
        return median(_turns(connection, address.path, user))
    except (OSError, http.client.HTTPException) as error:
        raise CommandError(f"{url}: a stream broke off: {error}") from error
    finally:
        connection.close()


def _turns(connection: http.client.HTTPConnection, path: str, user: str) -> Iterator[float]:
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    for number in range(TURNS):
        body = {"user_id": user, "text": f"message {number}", "metadata": {"session_id": f"s-{user}"}}
        began = time.perf_counter()
        connection.request("POST", path, orjson.dumps(body), headers)
        answer = connection.getresponse()
        while (line := answer.readline()) and line.rstrip() != b"event: token":
            pass
        told = time.perf_counter()
        if not line:
            raise CommandError(f"a stream of {connection.host}:{connection.port} ended without a token")
        answer.read()
        yield 1000 * (told - began)
