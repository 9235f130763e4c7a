"""The turn: begin, run the agent, complete. One message of one user, answered and committed exactly once or not at all.

1. ``BeginTurn`` at the user's actor: *granted*, *replayed* (committed before: here is the reply) or *busy* (ask again).
   What is known of the user is fetched at the same time.
2. The agent runs here, outside the actor, while the lease is renewed.
3. ``CompleteTurn`` commits. A completion that another turn has overtaken is *stale*, and the turn starts again.

Outcomes: a return is a commit. A :class:`Problem` other than 504 is none. 504 on completion is unknown; a retry under
the same turn id settles it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol
from uuid import uuid4

from daca_common.dapr import DaprClient, DaprError, DaprUnavailable
from daca_common.logs import annotate
from daca_common.problems import FieldError, Problem

from chat_service.agent import ChatAgent, Context
from chat_service.memory import MemoryClient
from chat_service.settings import Settings
from chat_service.store import ACTOR_TYPE

ATTEMPTS: Final = 3
"""A stale turn starts again twice; then 409."""

COMPLETE_SECONDS: Final = 15.0
"""How long a completion whose outcome is unknown is tried again."""

CALL_SECONDS: Final = 10.0
"""One call of an actor. Placement can hold a call for longer; asking again costs less than waiting for that."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``turn_id`` is the client's idempotency key, else a new id."""

    user_id: str
    turn_id: str
    session_id: str
    text: str
    fingerprint: str
    """Differs when the same key is used for another message."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A turn that is in the history for good."""

    turn_id: str
    session_id: str
    sequence: int
    reply: str
    occurred_at: str
    replayed: bool
    """It was committed by an earlier request under the same key."""


class Listener(Protocol):
    """Hears of a turn while it runs."""

    def token(self, text: str) -> None:
        """A piece of the reply."""

    def restart(self) -> None:
        """The turn starts again: discard the pieces so far."""


class Turns:
    """Takes turns for this process."""

    def __init__(self, dapr: DaprClient, memory: MemoryClient, agent: ChatAgent, settings: Settings) -> None:
        self._dapr = dapr
        self._memory = memory
        self._agent = agent
        self._settings = settings
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def drain(self) -> None:
        """Refuses new turns, and returns when the open ones are done."""
        self._draining = True
        await self._idle.wait()

    async def take(self, turn: Turn, listener: Listener | None = None) -> Committed:
        """Takes one turn.

        Raises:
            Problem: 409 (busy by setting, or overtaken too often), 422 (key used for another message), 502/503/504.
        """
        annotate(user=turn.user_id, session=turn.session_id, turn=turn.turn_id)
        if self._draining:
            raise Problem(
                503, "This pod is going; send it again.", kind="/problems/draining", headers={"Connection": "close"}
            )
        self._open += 1
        self._idle.clear()
        try:
            return await self._take(turn, listener)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def clear_history(self, user_id: str) -> None:
        """Empties a user's history.

        Raises:
            Problem: 503, the session cannot be reached.
        """
        annotate(user=user_id)
        try:
            await self._call(user_id, "ClearHistory", {})
        except (DaprError, DaprUnavailable) as error:
            raise _unreachable(error) from error

    async def _take(self, turn: Turn, listener: Listener | None) -> Committed:
        memory = asyncio.create_task(self._memory.fetch(turn.user_id))
        try:
            for attempt in range(ATTEMPTS):
                grant = await self._begin(turn)
                if grant["status"] == "replayed":
                    return _committed(turn, grant, replayed=True)
                if attempt and listener:
                    listener.restart()
                context = Context(
                    memory=await memory,
                    window=tuple((item["user_text"], item["reply_text"]) for item in grant["window"]),
                    running_summary=grant["running_summary"],
                )
                async with self._leased(turn, grant):
                    reply = await self._agent.reply(turn.text, context, listener.token if listener else None)
                answer = await self._complete(turn, grant, reply)
                if answer["status"] != "stale":
                    return _committed(turn, answer, replayed=answer["status"] == "replayed")
        finally:
            memory.cancel()
        raise Problem(
            409,
            f"The conversation changed {ATTEMPTS} times while this was answered. Nothing was stored; send it again.",
            kind="/problems/overtaken",
        )

    async def _begin(self, turn: Turn) -> dict[str, Any]:
        """Waits for this turn's place: the answer *granted* or *replayed*. Writes nothing, so it may be repeated."""
        arguments = {"turn_id": turn.turn_id, "fingerprint": turn.fingerprint, "claim": uuid4().hex}
        deadline = time.monotonic() + self._settings.turn_wait_seconds
        failures = 0
        waited = 0
        while True:
            try:
                answer = await self._call(turn.user_id, "BeginTurn", arguments)
            except (DaprError, DaprUnavailable) as error:
                if time.monotonic() >= deadline:
                    raise _unreachable(error) from error
                failures += 1
                await asyncio.sleep(min(1.0, 0.05 * 2**failures))
                continue
            if answer["status"] in {"granted", "replayed"}:
                return answer
            if answer["status"] != "busy":
                _refuse(answer)
            detail = f"Another message of this user is being answered; place in the queue: {answer['place']}."
            if self._settings.turn_when_busy == "reject":
                raise Problem(409, detail, kind="/problems/busy")
            if time.monotonic() >= deadline:
                raise Problem(503, detail, kind="/problems/busy", headers={"Retry-After": "1"})
            waited += 1
            # First in line asks often at the start, for turns that take milliseconds, then ever less.
            await asyncio.sleep(min(0.25, answer["retry_after_ms"] / 1000 * 1.3**waited))

    @contextlib.asynccontextmanager
    async def _leased(self, turn: Turn, grant: dict[str, Any]) -> AsyncIterator[None]:
        """Renews the lease while the body runs, and gives it up where the body fails."""
        lease = {"turn_id": turn.turn_id, "lease_token": grant["lease_token"]}
        renewing = asyncio.create_task(self._renew(turn.user_id, lease, grant["lease_seconds"]))
        try:
            yield
        except BaseException:
            with contextlib.suppress(DaprError, DaprUnavailable):  # it expires by itself
                await self._call(turn.user_id, "AbandonTurn", lease)
            raise
        finally:
            renewing.cancel()

    async def _renew(self, user_id: str, lease: dict[str, str], lease_seconds: float) -> None:
        while True:
            await asyncio.sleep(lease_seconds / 3)
            with contextlib.suppress(DaprError, DaprUnavailable):  # the lease only saves work
                await self._call(user_id, "RenewTurn", lease)

    async def _complete(self, turn: Turn, grant: dict[str, Any], reply: str) -> dict[str, Any]:
        """Commits: the answer *committed*, *replayed* or *stale*. Repeated while unknown: the turn id makes it safe."""
        arguments = {
            "turn_id": turn.turn_id,
            "lease_token": grant["lease_token"],
            "turn_no": grant["turn_no"],
            "session_id": turn.session_id,
            "user_text": turn.text,
            "reply_text": reply,
            "fingerprint": turn.fingerprint,
        }
        deadline = time.monotonic() + COMPLETE_SECONDS
        failures = 0
        while True:
            try:
                answer = await self._call(turn.user_id, "CompleteTurn", arguments)
            except (DaprError, DaprUnavailable) as error:
                if time.monotonic() >= deadline:
                    detail = (
                        "Whether the turn was committed is unknown. Send the same message with the header "
                        f"'Idempotency-Key: {turn.turn_id}' to learn its outcome."
                    )
                    raise Problem(504, detail, kind="/problems/outcome-unknown") from error
                failures += 1
                await asyncio.sleep(min(1.0, 0.05 * 2**failures))
                continue
            if answer["status"] in {"committed", "replayed", "stale"}:
                return answer
            _refuse(answer)

    async def _call(self, user_id: str, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self._dapr.invoke_actor(
            ACTOR_TYPE, user_id, method, arguments, timeout_seconds=CALL_SECONDS
        )
        return answer


def _committed(turn: Turn, answer: dict[str, Any], *, replayed: bool) -> Committed:
    if answer["reply_text"] is None:
        detail = (
            "This message was answered before, and its reply is no longer kept here. "
            f"The transcript has it: GET /conversations/{answer['session_id']} of agent-memory-service."
        )
        raise Problem(409, detail, kind="/problems/reply-no-longer-kept")
    return Committed(
        turn_id=turn.turn_id,
        session_id=answer["session_id"],
        sequence=answer["sequence"],
        reply=answer["reply_text"],
        occurred_at=answer["occurred_at"],
        replayed=replayed,
    )


def _refuse(answer: dict[str, Any]) -> NoReturn:
    """Turns an answer that grants nothing into the problem it is."""
    match answer["status"]:
        case "mismatch":
            detail = "This key was used for another message. Use a new one for each message."
            errors: list[FieldError] = [{"field": "Idempotency-Key", "detail": detail}]
            raise Problem(422, detail, kind="/problems/key-reused", errors=errors)
        case "full":
            detail = "The user's events cannot be delivered at the moment, and no more can be kept. Nothing was stored."
            raise Problem(503, detail, kind="/problems/backlog", headers={"Retry-After": "5"})
        case status:
            raise Problem(500, f"The session refused the turn: {status} {answer.get('errors', '')}")


def _unreachable(error: Exception) -> Problem:
    detail = f"The user's session cannot be reached ({type(error).__name__}). Nothing was stored; send it again."
    return Problem(503, detail, kind="/problems/session-unreachable", headers={"Retry-After": "1"})
