"""What is under load is looked at before a run: a wrong target gets one line, not a report full of failures."""

from typing import Final

import urllib3

from actor_load.errors import LoadError

SECONDS: Final = 5.0
WELCOME: Final = b"DACA Chat Service"
"""In what ``GET /`` of chat-service answers."""
MEMORY_WELCOME: Final = b"DACA Agent Memory Service"
"""In what ``GET /`` of agent-memory-service answers."""


def check_host(host: str | None) -> None:
    """Raises :class:`LoadError` unless chat-service answers at ``host``."""
    if not host:
        raise LoadError(
            "--host is missing: where the chat answers, as http://198.18.0.1:30010 (`make status` names it)"
        )
    answer = _get(host.rstrip("/") + "/", f"--host {host}", "is the chat there? `make status` names its address")
    if answer.status != 200 or WELCOME not in answer.data:
        raise LoadError(
            f"--host {host} answers {answer.status}, but not as chat-service does: `make status` names its address"
        )


def check_memory(address: str) -> None:
    """Raises :class:`LoadError` unless agent-memory-service answers at ``address``."""
    if not address:
        raise LoadError(
            "--memory-host is missing: the check after the run reads transcripts of agent-memory-service there "
            "(`make status` names it); --verify off does without the check"
        )
    answer = _get(f"{address}/", f"--memory-host {address}", "`make status` names its address")
    if answer.status != 200 or MEMORY_WELCOME not in answer.data:
        raise LoadError(f"--memory-host {address} answers {answer.status}, but not as agent-memory-service does")


def check_sidecar(address: str) -> None:
    """Raises :class:`LoadError` unless a Dapr sidecar that takes calls answers at ``address``."""
    answer = _get(f"{address}/v1.0/healthz/outbound", f"sidecar {address}", "--sidecar names it")
    if answer.status >= 300:
        raise LoadError(f"sidecar {address} is not ready to call actors: it answers {answer.status}")


def _get(url: str, what: str, mend: str) -> urllib3.BaseHTTPResponse:
    if not url.startswith(("http://", "https://")):
        raise LoadError(f"{what} is no address: http://name:port is one")
    try:
        return urllib3.request("GET", url, timeout=SECONDS, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise LoadError(f"{what} does not answer ({reason(error)}): {mend}") from error


def reason(error: Exception) -> str:
    """The innermost cause, without the addresses of objects that urllib3 puts in front."""
    while error.__context__ is not None:
        if not isinstance(error.__context__, Exception):
            break
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
