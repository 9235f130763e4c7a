"""Reads from outside what is stored of users: transcripts of agent-memory-service, outcomes of chat-service, histories
of the actors through a Dapr sidecar."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from pydantic import TypeAdapter

from actor_load.actors_api import method_path
from actor_load.checker.seen import Entry, Seen, State, Stored
from actor_load.checker.told import Turn

SECONDS: Final = 10.0
"""Of one request."""
AT_ONCE: Final = 16
"""Users who are read at the same moment."""
PAGE: Final = 500
"""Turns of a transcript in one answer."""
KEY_EXPIRED: Final = "/problems/key-expired"


@dataclass(frozen=True)
class Sources:
    """Where to read. An empty address: that is not read."""

    chat: str
    """``http://name:port`` of chat-service."""
    memory: str = ""
    """Of agent-memory-service."""
    sidecar: str = ""
    """Of a Dapr sidecar that reaches the actors."""
    actor_type: str = "UserSessionActor"
    headers: Mapping[str, str] | None = None
    """Of calls of the sidecar, with its token where it wants one."""


_state: Final = TypeAdapter(State)
_entries: Final = TypeAdapter(list[Entry])
_window: Final = TypeAdapter(list[Stored])


class _Unread(Exception):
    """Something was answered, but not what was asked for."""


class Reader:
    """Reads users one by one; safe to be used by several threads."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._pool = urllib3.PoolManager(maxsize=AT_ONCE, block=False, timeout=SECONDS, retries=False)

    def read(self, turns: Sequence[Turn], asked: Iterable[str]) -> Seen:
        """What is stored of a user.

        Args:
            turns: all that clients sent for this user.
            asked: the keys of those of which chat-service is asked what became of them.
        """
        seen, user_id = Seen(), turns[0].user_id
        for turn_id in asked:
            with _noted(seen, "the outcome of a turn"):
                if (state := self._state(user_id, turn_id)) is not None:
                    seen.states[turn_id] = state
        for session_id in sorted(_sessions(turns, seen)) if self.sources.memory else ():
            with _noted(seen, "a transcript"):
                seen.transcripts[session_id] = self._transcript(user_id, session_id)
        if self.sources.sidecar:
            with _noted(seen, "a history"):
                seen.history = self._history(user_id)
        return seen

    def _state(self, user_id: str, turn_id: str) -> State | None:
        """``None``: its reply is no longer kept."""
        url = f"{self.sources.chat}/chat/{quote(user_id, safe='')}/turns/{quote(turn_id, safe='')}"
        body = self._asked("GET", url, kept=False)
        if body is None:
            return None
        reply = body.get("reply") or {}
        session = {"session_id": reply["metadata"]["session_id"]} if reply else {}
        return _state.validate_python({**reply, **session, "status": body["status"]})

    def _transcript(self, user_id: str, session_id: str) -> list[Entry]:
        pages: list[list[Entry]] = []
        before: int | None = None
        while True:
            query: dict[str, Any] = {"user_id": user_id, "limit": PAGE, **({"before": before} if before else {})}
            url = f"{self.sources.memory}/conversations/{quote(session_id, safe='')}?{urlencode(query)}"
            body = self._asked("GET", url)
            pages.append(_entries.validate_python(body["history"]))
            before = body.get("before")
            if before is None:
                return [entry for page in reversed(pages) for entry in page]

    def _history(self, user_id: str) -> list[Stored]:
        path = method_path(self.sources.actor_type, user_id, "GetConversationHistory")
        body = self._asked("POST", self.sources.sidecar + path)
        return _window.validate_python(
            [{**turn, "text": turn["user_text"], "reply": turn["reply_text"]} for turn in body]
        )

    def _asked(self, method: str, url: str, *, kept: bool = True) -> Any:
        """An answer's JSON. ``None`` where not ``kept`` and chat-service no longer has it."""
        posted = b"{}" if method == "POST" else None
        answer = self._pool.request(method, url, body=posted, headers=self.sources.headers if posted else None)
        if answer.status == 200:
            return json.loads(answer.data)
        if not kept and answer.status == 504 and json.loads(answer.data).get("type") == KEY_EXPIRED:
            return None
        raise _Unread(str(answer.status))


@contextmanager
def _noted(seen: Seen, what: str) -> Iterator[None]:
    """What can't be read in the block is noted; an answer that is not as it should be, too."""
    try:
        yield
    except _Unread as unread:
        seen.unread.append(f"{what} can't be read: {unread}")
    except (urllib3.exceptions.HTTPError, LookupError, TypeError, ValueError, AttributeError) as error:
        seen.unread.append(f"{what} can't be read: {type(error).__name__}")


def _sessions(turns: Iterable[Turn], seen: Seen) -> set[str]:
    """All that a user's turns may be in."""
    named = {turn.session_id for turn in turns}
    told = {turn.reply.session_id for turn in turns if turn.reply}
    return (named | told | {state.session_id for state in seen.states.values()}) - {""}
