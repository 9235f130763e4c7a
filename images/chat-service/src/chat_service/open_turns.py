"""The turns that are open in this process: who follows each, what they are told, and when one ends without a reply.

A turn goes on for as long as somebody follows it. Whoever hangs up while it waits leaves the line; while its model
runs, the model is stopped. Once its completion is sent it ends by itself. A streamed turn that its client gave a key
goes on for a while without followers: who names a turn may come back to it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Final, Literal
from uuid import uuid4

import orjson
from daca_common.problems import Problem, unexpected
from fastapi.sse import format_sse_event

from chat_service.admission import Admission
from chat_service.turn import CLIENT_GONE, Committed, Turn, Turns, client_gone, interrupted, key_reused

COMMENT_SECONDS: Final = 15.0
"""Between two signs of life of a stream: proxies close what is silent."""

DRAINING: Final = "Daca-Draining"
"""A header of this process's refusals while it goes: another process may take the turn in its place."""

_log = logging.getLogger(__name__)


class OpenTurn:
    """A turn that waits or runs; what its followers are told is kept until it is over."""

    def __init__(self, turn: Turn, registry: "OpenTurns", *, stream: bool) -> None:
        self.turn = turn
        self.state: Literal["waiting", "running", "completing", "done"] = "waiting"
        self._registry = registry
        self._run_id = uuid4().hex[:8]
        """Part of each event's id: what another run of this turn told can't be gone on with."""
        self._stream = stream
        self._events: list[bytes] = []
        self._news = asyncio.Event()
        self._followers = 0
        self._leaving: asyncio.TimerHandle | None = None
        self._why: Problem | None = None
        self._drained = False
        self._in_line = False
        self._task = asyncio.create_task(self._run())

    # What the turn tells: the listener.

    def token(self, text: str) -> None:
        self._tell("token", orjson.dumps({"text": text}))

    def restart(self) -> None:
        self._tell("restart", b"{}")

    def in_line(self) -> None:
        if not self._in_line:
            self._in_line = True
            self._registry.admission.in_line += 1

    def running(self) -> None:
        if self._registry.draining:
            raise draining()
        self._leave_line()
        self.state = "running"

    def completing(self) -> None:
        self.state = "completing"

    # What a client asks.

    @property
    def left(self) -> bool:
        """Whether it is being ended because its client hung up: no retry is to be told so."""
        return self._why is not None and self._why.kind == CLIENT_GONE

    async def outcome(self) -> Committed:
        """The commit, once it is there.

        Raises:
            Problem: there is none.
        """
        with self._followed():
            return await asyncio.shield(self._task)

    async def events(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        """The turn's events from the one after ``last_event_id`` on, as they come, and comments between."""
        position = 0
        run_id, _, number = (last_event_id or "").partition("-")
        if run_id == self._run_id and number.isdigit():
            position = min(int(number), len(self._events))
        elif last_event_id:
            yield format_sse_event(event="restart", data_str="{}")
        with self._followed():
            while True:
                news = self._news
                while position < len(self._events):
                    position += 1
                    yield self._events[position - 1]
                if self.state == "done":
                    return
                try:
                    async with asyncio.timeout(COMMENT_SECONDS):
                        await news.wait()
                except TimeoutError:
                    yield format_sse_event(comment=self.state)

    async def events_until_drained(self) -> AsyncIterator[bytes]:
        """All events of the turn, for a process that handed it on. Where this one goes before the turn has run they
        break off, as they do where it dies: the other then takes the turn elsewhere."""
        async for event in self.events(None):
            if self._drained:
                return
            yield event

    async def cancel(self, why: Problem) -> bool:
        """Ends the turn without a reply; False where its completion was sent first. Returns when it is over."""
        if self.state in {"waiting", "running"}:
            self.stop(why)
        with contextlib.suppress(Problem):
            await asyncio.shield(self._task)
            return False
        return self._why is why

    def stop_waiting(self, why: Problem) -> None:
        """Ends a turn that has not begun to run."""
        if self.state == "waiting":
            self.stop(why)

    def stop(self, why: Problem) -> None:
        """Ends the turn without a reply. The first reason counts."""
        if self._why is None:
            self._why = why
            self._task.cancel()

    @contextlib.contextmanager
    def _followed(self) -> Iterator[None]:
        self._followers += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self.state in {"waiting", "running"}:
                self._left()

    def _left(self) -> None:
        gone = client_gone()
        seconds = self._registry.resume_seconds if self._stream and self.turn.keyed and self.state == "running" else 0
        if seconds:
            self._leaving = asyncio.get_running_loop().call_later(seconds, self._left_for_good, gone)
        else:
            self.stop(gone)

    def _left_for_good(self, why: Problem) -> None:
        if self.state in {"waiting", "running"}:
            self.stop(why)

    async def _run(self) -> Committed:
        try:
            committed = await self._registry.turns.take(self.turn, self, stream=self._stream)
        except asyncio.CancelledError:
            problem = self._why or draining()
        except Problem as found:
            problem = found
        except Exception:  # noqa: BLE001 - a stream ends in `message` or `error`, whatever was raised
            _log.exception("a turn failed")
            problem = unexpected()
        else:
            if committed.replayed:
                self._tell("replay", b"{}")
                self.token(committed.reply)
            self._end("message", reply_body(self.turn.user_id, committed))
            return committed
        self._drained = DRAINING in problem.headers
        self._end("error", problem.body())
        raise problem

    def _leave_line(self) -> None:
        if self._in_line:
            self._in_line = False
            self._registry.admission.in_line -= 1

    def _end(self, event: str, data: bytes) -> None:
        self.state = "done"
        self._leave_line()
        self._registry.ended(self)
        if self._leaving is not None:
            self._leaving.cancel()
        self._task.add_done_callback(lambda task: task.exception())  # read, if only here: nobody may follow any more
        self._tell(event, data)

    def _tell(self, event: str, data: bytes) -> None:
        event_id = f"{self._run_id}-{len(self._events) + 1}"
        self._events.append(format_sse_event(event=event, data_str=data.decode(), id=event_id))
        self._news.set()
        self._news = asyncio.Event()


class OpenTurns:
    """The open turns of this process."""

    def __init__(self, turns: Turns, admission: Admission, resume_seconds: float) -> None:
        """``resume_seconds``: how long a turn with a key goes on unfollowed."""
        self.turns = turns
        self.resume_seconds = resume_seconds
        self.draining = False
        self.admission = admission
        self._open: dict[str, dict[str, OpenTurn]] = {}
        """By user id and turn id."""
        self._idle = asyncio.Event()
        self._idle.set()

    def find(self, user_id: str, turn_id: str) -> OpenTurn | None:
        """An open turn of a user."""
        return self._open.get(user_id, {}).get(turn_id)

    def join(self, turn: Turn, *, stream: bool) -> OpenTurn:
        """Opens a turn, or the one that is open under its key.

        Raises:
            Problem: 422 (the key is that of another message), 503 (draining, or too many are open).
        """
        if (found := self.find(turn.user_id, turn.turn_id)) is not None and not found.left:
            other_session = turn.names_session and found.turn.session_id != turn.session_id
            if found.turn.text != turn.text or other_session:
                detail = "This key is that of another message, which is being answered. Use a new one for each message."
                raise key_reused(detail)
            return found
        if self.draining:
            raise draining()
        if self.admission.full:
            raise overloaded()
        if turn.when_busy == "interrupt":
            self._interrupt(turn.user_id)
        self.admission.open += 1
        self._idle.clear()
        opened = OpenTurn(turn, self, stream=stream)
        self._open.setdefault(turn.user_id, {})[turn.turn_id] = opened
        return opened

    def ended(self, turn: OpenTurn) -> None:
        """A turn is over."""
        of_user = self._open.get(turn.turn.user_id, {})
        if of_user.get(turn.turn.turn_id) is turn:  # else a retry has taken its place
            del of_user[turn.turn.turn_id]
            if not of_user:
                del self._open[turn.turn.user_id]
        self.admission.open -= 1
        if not self._open:
            self._idle.set()

    async def drain(self) -> None:
        """Refuses new turns and those that wait, and returns when the others are done."""
        self.draining = True
        for of_user in list(self._open.values()):
            for turn in list(of_user.values()):
                turn.stop_waiting(draining())
        await self._idle.wait()

    def _interrupt(self, user_id: str) -> None:
        for turn in self._open.get(user_id, {}).values():
            if turn.state == "running":
                turn.stop(interrupted())


def draining() -> Problem:
    """What a process that goes answers."""
    headers = {"Connection": "close", DRAINING: "true"}
    return Problem(503, "This pod is going; send it again.", kind="/problems/draining", headers=headers)


def overloaded() -> Problem:
    """What a process answers that has as many open turns as it can keep up with."""
    detail = "This pod answers as many messages as it can. Nothing was stored; send it again."
    return Problem(503, detail, kind="/problems/overloaded", headers={"Retry-After": "1"})


def reply_body(user_id: str, committed: Committed) -> bytes:
    """A committed turn for its client: ``{user_id, reply, metadata: {session_id, timestamp}, turn_id, sequence}``,
    and the ``finish_reason`` of a reply that was cut."""
    cut = {} if committed.finish_reason == "stop" else {"finish_reason": committed.finish_reason}
    return orjson.dumps(
        {
            "user_id": user_id,
            "reply": committed.reply,
            "metadata": {"session_id": committed.session_id, "timestamp": committed.occurred_at},
            "turn_id": committed.turn_id,
            "sequence": committed.sequence,
            **cut,
        }
    )
