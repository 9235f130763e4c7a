"""Talks to the two services as their users do."""

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from cluster import rest
from cluster.errors import CommandError
from cluster.forward import Reach

CHAT: Final = "chat-service"
MEMORY: Final = "agent-memory-service"
ATTEMPTS: Final = 5


class Refused(CommandError):
    """A service answered with an error; the message is what it said."""


class Client:
    """The chat and its memory, at the addresses that ``reach`` knows.

    Methods raise :class:`Refused` for an error answer and :class:`CommandError` where there was none.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def welcome(self, service: str) -> Any:
        """``GET /`` of a service."""
        return self._call(service, "GET", "")

    def initialise(self, user_id: str, memory: Mapping[str, str]) -> Any:
        """Writes what is known of a user: ``name``, ``preferred_style``, ``user_summary``."""
        return self._call(MEMORY, "POST", f"memories/{_quoted(user_id)}/initialize", memory)

    def memory(self, user_id: str) -> Any:
        """What is known of a user."""
        return self._call(MEMORY, "GET", f"memories/{_quoted(user_id)}")

    def transcript(self, session_id: str) -> list[Any]:
        """What was said in a session: ``[{role, content, timestamp}]``. An answer gets there a moment after it."""
        return list(self._call(MEMORY, "GET", f"conversations/{_quoted(session_id)}")["history"])

    def send(self, user_id: str, text: str, session_id: str | None = None) -> Any:
        """One turn: ``{user_id, reply, metadata: {session_id, timestamp}}``."""
        body: dict[str, Any] = {"user_id": user_id, "text": text}
        if session_id:
            body["metadata"] = {"session_id": session_id}
        return self._call(CHAT, "POST", "chat/", body, {"Idempotency-Key": uuid4().hex})

    def clear(self, user_id: str) -> None:
        """Makes the session forget; the transcript stays."""
        self._call(CHAT, "DELETE", f"chat/{_quoted(user_id)}/history")

    def _call(
        self, service: str, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        # A repeat is safe: a turn carries its idempotency key, and everything else here can be done twice.
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = rest.call(method, f"{self._reach.url(service)}/{path}", body, headers=headers)
                break
            except rest.Unreachable as error:
                if attempt == ATTEMPTS:
                    raise CommandError(f"{service} does not answer: {error}") from error
                time.sleep(attempt)
        if answer.status >= 300:
            raise Refused(f"{service} answered {answer.status}: {_detail(answer)}")
        return answer.json()


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _detail(answer: rest.Answer) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, TypeError, KeyError):
        return answer.text.strip() or "no reason given"
