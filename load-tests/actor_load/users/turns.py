"""One turn as a client takes it: sent, tried again under its Idempotency-Key where that helps, checked, counted."""

import itertools
import json
import random
import time
from typing import Final
from uuid import uuid4

import gevent
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment

from actor_load import notes
from actor_load.checker.told import Reply, Try, Turn
from actor_load.record import RETRY_PREFIX
from actor_load.users.answers import CONNECT_SECONDS, Answer, read, report

PATH: Final = "/chat/"
RETRY: Final = "RETRY"
"""Request type, in Locust's tables, of tries that broke and were followed by another: no failures, nor turns."""

LOST: Final = "lost turn: the sequence repeats or goes back"
JUMPED: Final = "out of order: the sequence jumps"
CUT_OFF: Final = "no answer when the run ended"

LONGEST_WAIT: Final = 10.0
"""Seconds; a person does not heed a longer Retry-After."""

_SAYINGS: Final = (
    "Hi there",
    "What did I say before?",
    "I like books about the sea.",
    "Which of them should I read next?",
    "What is the time?",
    "Tell me more about that, please.",
    "Thanks! And what would you do in my place?",
)


def saying() -> str:
    """Something to say."""
    return random.choice(_SAYINGS)  # noqa: S311 - no secret


class Person:
    """Somebody who chats, and what the system promises them: each turn is committed once, in the order they saw.

    ``sequence`` counts a user's turns. So it is above that of every turn that was answered before this one was sent, it
    never comes twice, and it is at most the number of turns that were sent and may have been committed.
    """

    def __init__(self, user_id: str) -> None:
        """``user_id`` is one that nobody has met: the first turn has sequence 1."""
        self.user_id = user_id
        self._possible = 0
        self._highest = 0
        self._open = 0
        self._seen: set[int] = set()

    def sends(self) -> int:
        """A turn goes out; what its sequence has to be above."""
        self._possible += 1
        self._open += 1
        return self._highest

    def committed(self, floor: int, sequence: int) -> str:
        """A turn was answered; what is wrong with its sequence, or nothing. ``floor`` is what :meth:`sends` gave."""
        self._open -= 1
        complaint = ""
        if sequence <= floor or sequence in self._seen:
            complaint = LOST
        elif sequence > self._possible:
            complaint = JUMPED
        if complaint:  # counted once; the turns after it are held to what is there now
            self._seen.clear()
            self._highest, self._possible = sequence, sequence + self._open
        self._highest = max(self._highest, sequence)
        if self._open:
            self._seen.add(sequence)
        else:
            self._seen.clear()
        return complaint

    def failed(self, *, unknown: bool) -> None:
        """A turn is given up. Where its outcome is ``unknown`` it may be committed, now or later."""
        self._open -= 1
        if not unknown:
            self._possible -= 1


class ChatUser(FastHttpUser):
    """A Locust user that takes turns over HTTP."""

    abstract = True
    connection_timeout = CONNECT_SECONDS

    def __init__(self, environment: Environment) -> None:
        """Paths begin with a slash: one at the end of ``--host`` would be the second."""
        # On the object: Locust sets the class's own anew for each run.
        self.host = (self.host or environment.host or "").rstrip("/") or None
        super().__init__(environment)
        self._notes = notes.of(environment)

    def chat(self, person: Person, session_id: str, name: str, *, retries: int, due: float | None = None) -> None:
        """Takes one turn. It is counted once, under ``name``, with all its time since ``due`` (``time.perf_counter()``;
        without it, since now). It has failed when its last try has, or when the answer breaks a promise.

        Tried again are: no answer, and 502, 503, 504 (the outcome is unknown, or nothing was stored), 429, and a 409
        that asks for it. Each such try goes over a new connection, by which it may reach another pod.
        """
        began = time.perf_counter() if due is None else due
        key, text = uuid4().hex, saying()
        body = json.dumps(
            {"user_id": person.user_id, "text": text, "metadata": {"session_id": session_id}}, ensure_ascii=False
        )
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        floor, tries = person.sends(), list[Try]()
        due_at = time.time() - (time.perf_counter() - began)
        try:
            answer, unknown = self._tried(body, headers, retries, tries)
        except BaseException:  # Locust ends the user in the middle
            person.failed(unknown=True)
            raise
        finally:
            if self._notes is not None:
                self._notes.turn(Turn(person.user_id, key, session_id, text, due_at, tuple(tries)))
        error = answer.error
        if error:
            person.failed(unknown=unknown)
        else:
            error = _complaint(answer, person, session_id, key, floor)
        report(self.environment, "POST", name, began, size=answer.size, error=error)

    def _tried(self, body: str, headers: dict[str, str], retries: int, tries: list[Try]) -> tuple[Answer, bool]:
        """The last answer, and whether one of the tries may have committed the turn without saying so. What each try
        was told is added to ``tries``."""
        unknown = False
        for attempt in itertools.count():
            sent, sent_at = time.perf_counter(), time.time()
            try:
                answer = read(self.client.request("POST", PATH, data=body, headers=headers, catch_response=True))
            except BaseException:
                tries.append(Try(sent_at, time.time(), "unknown", CUT_OFF))
                raise
            tries.append(_told(answer, sent_at))
            unknown = unknown or _is_unknown(answer)
            if attempt == retries or not _is_worth_a_retry(answer):
                return answer, unknown
            reason = str(answer.status) if answer.status else "no answer"
            report(self.environment, RETRY, f"{RETRY_PREFIX} after {reason}", sent, size=answer.size)
            gevent.sleep(_pause(answer, attempt))
            self.connect_anew()
        raise AssertionError("unreachable")

    def connect_anew(self) -> None:
        """The next request goes over a new connection: a kept one stays with its pod for as long as it lives."""
        self.client.client.close()


def _is_unknown(answer: Answer) -> bool:
    """Whether the turn may have been committed. chat-service names its problems; an answer without such a name is a
    gateway's, which knows of the connection only."""
    if answer.kind.startswith("/problems/"):
        return answer.kind in {"/problems/outcome-unknown", "/problems/key-expired"}
    return answer.status == 0 or answer.status >= 500


def _told(answer: Answer, sent_at: float) -> Try:
    """What a try was told. A 200 without what makes it a reply leaves open whether the turn is committed."""
    ended, body = time.time(), answer.body if isinstance(answer.body, dict) else {}
    if answer.error:
        return Try(sent_at, ended, "unknown" if _is_unknown(answer) else "refused", answer.error)
    metadata = body.get("metadata")
    session_id = metadata.get("session_id") if isinstance(metadata, dict) else None
    text, turn_id, sequence = body.get("reply"), body.get("turn_id"), body.get("sequence")
    if not (
        isinstance(text, str) and isinstance(session_id, str) and isinstance(turn_id, str) and isinstance(sequence, int)
    ):
        return Try(sent_at, ended, "unknown", "200 without a reply")
    return Try(sent_at, ended, "answered", "200", Reply(text, session_id, turn_id, sequence))


def _is_worth_a_retry(answer: Answer) -> bool:
    return answer.status in {0, 429, 502, 503, 504} or answer.kind in {"/problems/busy", "/problems/overtaken"}


def _pause(answer: Answer, attempt: int) -> float:
    if answer.retry_after is not None:
        return min(answer.retry_after, LONGEST_WAIT)
    return min(0.25 * (1 << attempt), LONGEST_WAIT)


def _complaint(answer: Answer, person: Person, session_id: str, key: str, floor: int) -> str:
    """What an answered turn lacks, or nothing."""
    body = answer.body if isinstance(answer.body, dict) else {}
    sequence = body.get("sequence")
    if not isinstance(sequence, int):
        person.failed(unknown=True)
        return "the answer has no sequence"
    complaint = person.committed(floor, sequence)
    if complaint:
        return complaint
    metadata = body.get("metadata")
    expected = {"user_id": person.user_id, "turn_id": key}
    for field, value in expected.items():
        if body.get(field) != value:
            return f"the answer is another's: {field}"
    if not isinstance(metadata, dict) or metadata.get("session_id") != session_id:
        return "the answer is another's: session_id"
    return "" if str(body.get("reply") or "").strip() else "the reply is empty"
