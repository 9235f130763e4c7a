"""The turn: begin, run the agent, complete. One message of one user, answered and committed exactly once or not at all.

1. ``BeginTurn`` at the user's session: *granted*, *replayed* (committed before: here is the reply) or *busy* (wait).
2. The agent runs here, outside the actor, while the lease is renewed.
3. ``CompleteTurn`` commits. A completion that another turn has overtaken is *stale*, and the turn starts again.

Outcomes: a return is a commit. A :class:`Problem` other than 504 is none. 504 on completion is unknown; a retry under
the same turn id settles it.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, Protocol
from uuid import uuid4

from daca_common.backoff import Backoff
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.problems import FieldError, Problem

from chat_service import protocol
from chat_service.agent import ChatAgent, Context, Reply
from chat_service.memory import MemoryClient, Remembered
from chat_service.protocol import BeginTurn, CompleteTurn, TurnRef, fingerprint
from chat_service.session import Session
from chat_service.sessions import ABANDON, BEGIN, COMPLETE, RENEW, REPEATED_SECONDS, Sessions, patience
from chat_service.store import ActiveElsewhere

ATTEMPTS: Final = 3
"""A stale turn starts again twice; then 409."""

COMPLETE_SECONDS: Final = 15.0
"""How long a completion whose outcome is unknown is tried again."""

REQUEUED_SECONDS: Final = 1.0
"""A message that reached the service so long ago takes its place in the line among those that waited with it."""

_log = logging.getLogger(__name__)

KEY: Final = "Idempotency-Key"
"""The header that names a turn."""

CLIENT_GONE: Final = "/problems/client-gone"

WhenBusy = Literal["wait", "reject", "interrupt"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``turn_id`` is the client's idempotency key (``keyed``), else a new id."""

    user_id: str
    turn_id: str
    keyed: bool
    session_id: str
    names_session: bool
    """Whether the client chose the session."""
    text: str
    arrived_at: float
    """When it reached the service, in Unix seconds: its place in the line of the user's messages."""
    when_busy: WhenBusy


@dataclass(frozen=True, slots=True)
class Committed:
    """A turn that is in the history for good."""

    turn_id: str
    session_id: str
    sequence: int
    reply: str
    occurred_at: str
    finish_reason: str
    """Why the reply ended: of the model's own (``stop``), or cut at its ``length`` or by a ``content_filter``."""
    replayed: bool
    """It was committed by an earlier request under the same key."""


class Listener(Protocol):
    """Hears of a turn while it runs."""

    def token(self, text: str) -> None:
        """A piece of the reply."""

    def restart(self) -> None:
        """The turn starts again: discard the pieces so far."""

    def in_line(self) -> None:
        """It waits for another message of its user."""

    def running(self) -> None:
        """It waits no longer: its model is called."""

    def completing(self) -> None:
        """Its completion is sent: from now on it ends by itself."""


class Turns:
    """Takes turns for this process."""

    def __init__(self, sessions: Sessions, memory: MemoryClient, agent: ChatAgent, wait_seconds: float) -> None:
        """``wait_seconds``: how long a message waits for those before it."""
        self._sessions = sessions
        self._memory = memory
        self._agent = agent
        self._wait_seconds = wait_seconds

    async def take(self, turn: Turn, listener: Listener, *, stream: bool) -> Committed:
        """Takes one turn; with ``stream`` the listener hears the reply as it comes. To cancel it before its completion
        is sent leaves nothing behind.

        Raises:
            Problem: 409 (busy by setting, overtaken too often), 410 (cancelled), 422 (key used for another message),
                429 (too many wait), 502/503/504.
        """
        for attempt in range(ATTEMPTS):
            grant = await self._begin(turn, listener)
            if isinstance(grant, protocol.Replayed):
                return _committed(grant, replayed=True)
            if attempt:
                listener.restart()
            async with self._leased(turn, grant):
                listener.running()
                session = self._sessions.here(turn.user_id)
                remembered = session.remembered if session is not None else Remembered()
                context = Context(
                    memory=await self._memory.get(turn.user_id, remembered),
                    window=tuple((item.user_text, item.reply_text) for item in grant.window),
                    running_summary=grant.running_summary,
                )
                reply = await self._agent.reply(turn.text, context, listener.token if stream else None)
                listener.completing()
                answer = await self._complete(turn, grant, reply)
            if isinstance(answer, (protocol.Committed, protocol.Replayed)):
                return _committed(answer, replayed=isinstance(answer, protocol.Replayed))
        raise Problem(
            409,
            f"The conversation changed {ATTEMPTS} times while this was answered. Nothing was stored; send it again.",
            kind="/problems/overtaken",
        )

    async def _begin(self, turn: Turn, listener: Listener) -> protocol.Granted | protocol.Replayed:
        """Waits for this turn's place in the line. Writes nothing, so it may be repeated."""
        deadline = time.monotonic() + self._wait_seconds
        arguments = BeginTurn(
            turn_id=turn.turn_id,
            fingerprint=fingerprint(turn.text),
            session_id=turn.session_id if turn.names_session else None,
            claim=uuid4().hex,
            keyed=turn.keyed,
            waits=turn.when_busy != "reject",
            arrived_at=turn.arrived_at,
            # So old, it has waited at a process that is gone.
            requeued=time.time() - turn.arrived_at > REQUEUED_SECONDS,
            gives_up_at=time.time() + self._wait_seconds,
        )
        try:
            return await self._next(turn, arguments, deadline, listener)
        except BaseException:
            await self._abandon(turn.user_id, TurnRef(turn_id=turn.turn_id, claim=arguments.claim))
            raise

    async def _next(
        self, turn: Turn, arguments: BeginTurn, deadline: float, listener: Listener
    ) -> protocol.Granted | protocol.Replayed:
        backoff, time_outs = Backoff(0.05, 1.0), patience()
        while True:
            session = self._sessions.here(turn.user_id)
            asked, arguments = arguments, arguments.model_copy(update={"requeued": True})  # wherever it asks again
            try:
                answer = await self._ask(turn.user_id, session, asked, time_outs.next())
            except (DaprError, DaprUnavailable) as error:
                if time.monotonic() >= deadline:
                    raise unreachable(error) from error
                _log.info("a session did not answer, asking again", extra={"error": type(error).__name__})
                await asyncio.sleep(backoff.next())
                continue
            time_outs.reset()
            if isinstance(answer, (protocol.Granted, protocol.Replayed)):
                return answer
            if not isinstance(answer, protocol.Busy):
                refuse(answer)
            detail = f"Another message of this user is being answered; place in the line: {answer.place}."
            if turn.when_busy == "reject":
                raise Problem(409, detail, kind="/problems/busy")
            if time.monotonic() >= deadline:
                raise waited_too_long()
            listener.in_line()
            if session is None:
                await asyncio.sleep(answer.retry_after_seconds)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await session.moved_up(turn.turn_id)

    async def _ask(
        self, user_id: str, session: Session | None, arguments: BeginTurn, seconds: float
    ) -> protocol.BeginAnswer:
        if session is not None:
            with contextlib.suppress(ActiveElsewhere):
                return await session.begin(arguments, stays=True)
        return await self._sessions.call(user_id, BEGIN, arguments, seconds=seconds)

    @contextlib.asynccontextmanager
    async def _leased(self, turn: Turn, grant: protocol.Granted) -> AsyncIterator[None]:
        """Renews the lease while the body runs, and gives it up where the body fails."""
        lease = TurnRef(turn_id=turn.turn_id, lease_token=grant.lease_token)
        renewing = asyncio.create_task(self._renew(turn.user_id, lease, grant.lease_seconds))
        try:
            yield
        except BaseException:
            await self._abandon(turn.user_id, lease)
            raise
        finally:
            renewing.cancel()

    async def _renew(self, user_id: str, lease: TurnRef, lease_seconds: float) -> None:
        while True:
            await asyncio.sleep(lease_seconds / 3)
            with contextlib.suppress(DaprError, DaprUnavailable):  # the lease only saves work
                await self._sessions.call(user_id, RENEW, lease, seconds=REPEATED_SECONDS)

    async def _abandon(self, user_id: str, lease: TurnRef) -> None:
        """Leaves the line, or gives back the lease. It lets the next one in sooner; both end by themselves too."""
        with contextlib.suppress(DaprError, DaprUnavailable):
            await self._sessions.call(user_id, ABANDON, lease, seconds=REPEATED_SECONDS)

    async def _complete(self, turn: Turn, grant: protocol.Granted, reply: Reply) -> protocol.CompleteAnswer:
        """Commits: the answer *committed*, *replayed* or *stale*. Repeated while unknown: the turn id makes it safe."""
        arguments = CompleteTurn(
            turn_id=turn.turn_id,
            lease_token=grant.lease_token,
            turn_no=grant.turn_no,
            session_id=turn.session_id,
            user_text=turn.text,
            reply_text=reply.text,
            finish_reason=reply.finish,
        )
        deadline = time.monotonic() + COMPLETE_SECONDS
        backoff, time_outs = Backoff(0.05, 1.0), patience()
        unknown = False
        while True:
            try:
                answer = await self._sessions.call(turn.user_id, COMPLETE, arguments, seconds=time_outs.next())
            except (DaprError, DaprUnavailable) as error:
                if isinstance(error, DaprError) and error.store_full and not unknown:
                    raise store_full() from error
                unknown = True
                if time.monotonic() >= deadline:
                    detail = (
                        "Whether the turn was committed is unknown. Send the same message with the header "
                        f"'{KEY}: {turn.turn_id}' to learn its outcome."
                    )
                    raise Problem(504, detail, kind="/problems/outcome-unknown") from error
                await asyncio.sleep(backoff.next())
                continue
            if isinstance(answer, (protocol.Committed, protocol.Replayed, protocol.Stale)):
                return answer
            refuse(answer)


def _committed(answer: protocol.Committed | protocol.Replayed, *, replayed: bool) -> Committed:
    return Committed(
        turn_id=answer.turn_id,
        session_id=answer.session_id,
        sequence=answer.sequence,
        reply=answer.reply_text,
        occurred_at=answer.occurred_at,
        finish_reason=answer.finish_reason,
        replayed=replayed,
    )


def refuse(answer: protocol.Answer) -> NoReturn:
    """Turns an answer that grants nothing into the problem it is."""
    match answer:
        case protocol.Mismatch():
            raise key_reused("This key was used for another message. Use a new one for each message.")
        case protocol.Expired():
            # Not a 4xx: that would say that nothing was committed, and clients would send it under a new key.
            detail = (
                "A turn was committed under this key so long ago that its reply is no longer kept. The transcript has "
                f"it: GET /conversations/{answer.session_id} of agent-memory-service. Use a new key for a new message."
            )
            raise Problem(504, detail, kind="/problems/key-expired")
        case protocol.Full():
            detail = "The user's events cannot be delivered at the moment, and no more can be kept. Nothing was stored."
            raise Problem(503, detail, kind="/problems/backlog", headers={"Retry-After": "5"})
        case protocol.Crowded():
            detail = "Too many messages of this user wait already. Nothing was stored; send it again later."
            raise Problem(429, detail, kind="/problems/too-many-waiting", headers={"Retry-After": "1"})
        case protocol.GaveUp():
            raise waited_too_long()
        case protocol.Cancelled():
            raise cancelled("The turn was cancelled.")
        case _:
            raise Problem(500, f"The session refused the turn: {answer.status}", kind="/problems/unexpected")


def cancelled(why: str) -> Problem:
    """What the client of a cancelled turn is told."""
    return Problem(410, f"{why} Nothing was stored. To say it after all, use a new key.", kind="/problems/cancelled")


def interrupted() -> Problem:
    """What the client of a turn is told that made way for a later message."""
    detail = "Another message of the user took its place. Nothing was stored."
    return Problem(409, detail, kind="/problems/interrupted")


def client_gone() -> Problem:
    """Why a turn ended whose client hung up."""
    return Problem(499, "Its client hung up. Nothing was stored; send it again.", kind=CLIENT_GONE)


def key_reused(detail: str) -> Problem:
    """The key is that of another message."""
    errors: list[FieldError] = [{"field": KEY, "location": "header", "detail": detail}]
    return Problem(422, detail, kind="/problems/key-reused", errors=errors)


def waited_too_long() -> Problem:
    """Other messages of the user are still before it."""
    detail = "The messages before this one took too long. Nothing was stored; send it again."
    return Problem(503, detail, kind="/problems/waited-too-long", headers={"Retry-After": "1"})


def unreachable(error: Exception) -> Problem:
    """The session can't be asked."""
    detail = f"The user's session cannot be reached ({type(error).__name__}). Nothing was stored; send it again."
    return Problem(503, detail, kind="/problems/session-unreachable", headers={"Retry-After": "1"})


def store_full() -> Problem:
    """Redis has no memory for another write."""
    detail = "The state store is full: it answers reads and takes no writes. Nothing was stored."
    return Problem(503, detail, kind="/problems/store-full", headers={"Retry-After": "30"})
