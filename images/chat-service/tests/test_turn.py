"""The turn, as one process takes it: waiting, retrying, starting again, giving up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import orjson
import pytest
from chat_service import sessions
from chat_service.agent import Context, Reply
from chat_service.document import Document
from chat_service.memory import Memory, Remembered
from chat_service.protocol import AddMessage, BeginTurn, Granted, SetSummary
from chat_service.session import Session
from chat_service.sessions import Sessions
from chat_service.store import ActiveElsewhere
from chat_service.turn import Turn, Turns, WhenBusy
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.problems import Problem
from support.store import MemoryStore, Pods
from support.waiting import until

METHODS = {
    method.name: method
    for method in (sessions.BEGIN, sessions.RENEW, sessions.COMPLETE, sessions.ABANDON, sessions.CLEAR)
}


class Sidecar:
    """Calls the session of one user in another pod, and fails as Dapr does when it is told to."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self.session: Session
        self.pod = "elsewhere"
        self.slow: asyncio.Event | None = None
        """The answer is on its way until it is set."""
        self.calls: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.lost_answers: dict[str, int] = {}

    async def invoke_actor(self, _: str, user_id: str, name: str, arguments: Any, **__: Any) -> Any:
        self.calls.append(name)
        if self.faults.get(name):
            raise self.faults[name].pop(0)
        self.session = await self._pods.session(self.pod, user_id)
        method: Any = METHODS[name]
        answer = await method.do(self.session, method.takes(**arguments))
        if self.slow:
            await self.slow.wait()
        if self.lost_answers.get(name):
            self.lost_answers[name] -= 1
            raise DaprUnavailable("the connection broke")
        return orjson.loads(orjson.dumps(answer))


class MovingStore:
    """The documents as the sidecar of one pod sees them: once an actor has moved, not at all."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.moved = False

    async def load(self, user_id: str) -> Document:
        self._check()
        return await self._store.load(user_id)

    async def save(self, user_id: str, document: Document) -> None:
        self._check()
        await self._store.save(user_id, document)

    async def save_where_the_count_differs(self, user_id: str, stored: Document, changed: Document) -> Document | None:
        self._check()
        return await self._store.save_where_the_count_differs(user_id, stored, changed)

    def _check(self) -> None:
        if self.moved:
            raise ActiveElsewhere


class Memories:
    async def get(self, user_id: str, _: Remembered) -> Memory:
        return Memory.of_new_user(user_id)


class Agent:
    """Answers with what it is given; ``during`` runs while the model would."""

    def __init__(self) -> None:
        self.during: Callable[[], Awaitable[object]] | None = None
        self.contexts: list[Context] = []

    async def reply(self, text: str, context: Context, on_token: Callable[[str], None] | None = None) -> Reply:
        self.contexts.append(context)
        if on_token:
            on_token(text)
        if self.during:
            await self.during()
        return Reply(f"reply to {text}", "stop")


class Heard:
    """What a listener is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.waited = False

    def token(self, text: str) -> None:
        self.events.append(text)

    def restart(self) -> None:
        self.events.append("(restart)")

    def in_line(self) -> None:
        self.waited = True

    def running(self) -> None:
        self.events.append("(running)")

    def completing(self) -> None:
        self.events.append("(completing)")


class Bench:
    """Turns of one process; the session is in another one, or ``here``."""

    def __init__(self, lease_seconds: float = 5.0, wait_seconds: float = 30.0) -> None:
        self.pods = Pods(lease_seconds=lease_seconds)
        self.actors = Sidecar(self.pods)
        self.agent = Agent()
        calls = Sessions(self.pods.host("here"), self.actors)  # type: ignore[arg-type]
        self.turns = Turns(calls, Memories(), self.agent, wait_seconds)  # type: ignore[arg-type]

    @property
    def said(self) -> list[str]:
        return [item.user_text for item in self.pods.store.of("alice").exchanges]

    async def take(self, text: str = "hi", key: str | None = None, when_busy: WhenBusy = "wait") -> Any:
        return await self.turns.take(turn(text, key, when_busy), Heard(), stream=False)

    async def here(self) -> Session:
        """From now on the session is in this very process."""
        return await self.pods.session("here")

    async def overtake(self) -> None:
        await self.actors.session.add_message(AddMessage(user_text="overtook", reply_text="yes"))


def turn(text: str = "hi", key: str | None = None, when_busy: WhenBusy = "wait") -> Turn:
    return Turn(
        user_id="alice",
        turn_id=key or uuid4().hex,
        keyed=key is not None,
        session_id="s",
        names_session=True,
        text=text,
        arrived_at=time.time(),
        when_busy=when_busy,
    )


async def test_a_turn_is_answered_from_the_window_and_committed():
    bench = Bench()
    await bench.take("Hi there")
    committed = await bench.take("And now?")
    assert (committed.reply, committed.sequence, committed.replayed) == ("reply to And now?", 2, False)
    assert bench.agent.contexts[1].window == (("Hi there", "reply to Hi there"),)
    assert bench.said == ["Hi there", "And now?"]


async def test_a_retry_under_the_same_key_gets_the_same_reply_without_the_model():
    bench = Bench()
    first = await bench.take("hi", "key")
    again = await bench.take("hi", "key")
    assert again.replayed
    assert (again.reply, again.sequence, again.occurred_at) == (first.reply, first.sequence, first.occurred_at)
    assert len(bench.agent.contexts) == 1


async def test_two_requests_under_one_key_at_once_are_one_turn():
    bench = Bench()
    bench.agent.during = lambda: asyncio.sleep(0.02)
    answers = await asyncio.gather(*(bench.take("hi", "key") for _ in range(3)))
    assert sorted(item.replayed for item in answers) == [False, True, True]
    assert bench.said == ["hi"]


async def test_a_key_used_for_another_message_is_refused():
    bench = Bench()
    await bench.take("hi", "key")
    with pytest.raises(Problem) as refused:
        await bench.take("something else", "key")
    assert refused.value.status == 422
    assert refused.value.errors[0]["field"] == "Idempotency-Key"


async def test_messages_of_one_user_at_once_all_see_the_ones_before_them():
    bench = Bench()
    texts = [f"m{number}" for number in range(30)]
    await asyncio.gather(*(bench.take(text) for text in texts))
    assert bench.said == texts
    assert [len(context.window) for context in bench.agent.contexts] == [0, 1, 2, 3, 4] + [5] * 25


async def test_a_turn_that_is_overtaken_starts_again_and_says_so():
    bench = Bench()
    heard = Heard()

    async def once() -> None:
        bench.agent.during = None
        await bench.overtake()

    bench.agent.during = once
    committed = await bench.turns.take(turn("hi"), heard, stream=True)
    assert committed.sequence == 2
    assert [event for event in heard.events if event in {"hi", "(restart)"}] == ["hi", "(restart)", "hi"]
    assert bench.said == ["overtook", "hi"]


async def test_a_turn_that_is_overtaken_again_and_again_gives_up_without_a_trace():
    bench = Bench()
    bench.agent.during = bench.overtake
    with pytest.raises(Problem) as refused:
        await bench.take("hi")
    assert refused.value.status == 409
    assert bench.said == ["overtook"] * 3


async def test_a_failed_model_call_stores_nothing_and_frees_the_session_at_once():
    bench = Bench(lease_seconds=60)

    async def fail() -> None:
        raise Problem(502, "the model failed")

    bench.agent.during = fail
    with pytest.raises(Problem) as refused:
        await bench.take("hi")
    assert (refused.value.status, bench.said) == (502, [])
    bench.agent.during = None
    assert (await asyncio.wait_for(bench.take("again"), 1)).sequence == 1


async def test_the_lease_is_renewed_while_the_model_runs():
    bench = Bench(lease_seconds=0.06)
    bench.agent.during = lambda: asyncio.sleep(0.2)
    await asyncio.gather(bench.take("slow"), bench.take("next"))
    assert bench.actors.calls.count("RenewTurn") >= 3
    assert len(bench.agent.contexts) == 2  # neither ran twice


@pytest.mark.parametrize("error", [DaprUnavailable("refused"), DaprError(500, "ERR_ACTOR_INVOKE_METHOD", "no host")])
async def test_a_session_that_cannot_be_reached_for_a_moment_is_asked_again(error: Exception):
    bench = Bench()
    bench.actors.faults = {"BeginTurn": [error, error], "CompleteTurn": [error]}
    assert (await bench.take("hi")).sequence == 1
    assert bench.said == ["hi"]


async def test_a_completion_whose_answer_is_lost_is_settled_by_its_turn_id():
    bench = Bench()
    bench.actors.lost_answers = {"CompleteTurn": 2}
    committed = await bench.take("hi")
    assert committed.reply == "reply to hi"
    assert bench.said == ["hi"]


async def test_a_begin_whose_answer_is_lost_does_not_wait_for_its_own_lease():
    bench = Bench(lease_seconds=60)
    bench.actors.lost_answers = {"BeginTurn": 1}
    assert (await asyncio.wait_for(bench.take("hi"), 2)).sequence == 1


async def test_a_session_that_stays_out_of_reach_is_a_503_before_and_an_unknown_outcome_after_the_model(monkeypatch):
    monkeypatch.setattr("chat_service.turn.COMPLETE_SECONDS", 0.1)
    down: list[Exception] = [DaprUnavailable("refused")] * 99
    bench = Bench(wait_seconds=0.1)
    bench.actors.faults = {"BeginTurn": list(down)}
    with pytest.raises(Problem) as unreachable:
        await bench.take("hi")
    assert unreachable.value.status == 503
    bench.actors.faults = {"CompleteTurn": list(down)}
    with pytest.raises(Problem) as unknown:
        await bench.take("hi", "my-key")
    assert unknown.value.status == 504
    assert "Idempotency-Key: my-key" in unknown.value.detail


@pytest.mark.parametrize(("when_busy", "status"), [("wait", 503), ("reject", 409)])
async def test_a_second_message_waits_its_turn_for_so_long_or_is_rejected_by_choice(when_busy: WhenBusy, status: int):
    bench = Bench(wait_seconds=0.1)
    finish = asyncio.Event()
    bench.agent.during = finish.wait
    first = asyncio.create_task(bench.take("first"))
    await asyncio.sleep(0.01)
    with pytest.raises(Problem) as refused:
        await bench.take("second", when_busy=when_busy)
    assert refused.value.status == status
    finish.set()
    assert (await first).sequence == 1


async def test_messages_that_wait_here_are_woken_and_do_not_ask_again_and_again():
    bench = Bench(lease_seconds=60)
    session = await bench.here()
    asked: list[str] = []
    begin = session.begin

    async def counted(arguments: Any, *, stays: bool = False) -> Any:
        asked.append(arguments.turn_id)
        return await begin(arguments, stays=stays)

    session.begin = counted  # type: ignore[method-assign]
    bench.agent.during = lambda: asyncio.sleep(0.01)
    texts = [f"m{number}" for number in range(10)]
    await asyncio.wait_for(asyncio.gather(*(bench.take(text) for text in texts)), 5)
    assert bench.said == texts
    assert len(asked) <= 2 * len(texts)
    assert bench.actors.calls == []


async def test_a_wake_that_comes_between_the_answer_and_the_wait_is_not_lost():
    bench = Bench(lease_seconds=60)
    session = await bench.here()
    holder = await session.begin(BeginTurn(turn_id="holder"))
    assert isinstance(holder, Granted)
    begin = session.begin

    def finish() -> None:
        session._finish("holder")

    async def answered(arguments: Any, *, stays: bool = False) -> Any:
        answer = await begin(arguments, stays=stays)
        if answer.status == "busy":
            asyncio.get_running_loop().call_soon(finish)
        return answer

    session.begin = answered  # type: ignore[method-assign]
    assert (await asyncio.wait_for(bench.take("hi"), 1)).sequence == 1


@pytest.mark.parametrize("when", ["begin", "complete"])
async def test_a_session_that_turns_out_to_live_elsewhere_is_asked_there(when: str):
    bench = Bench()
    elsewhere = MovingStore(bench.pods.store)
    bench.pods.host("here").documents = elsewhere
    await bench.here()

    async def move() -> None:
        elsewhere.moved = True
        if session := bench.pods.host("here").find("alice"):
            session._document = None  # it has to look

    if when == "begin":
        await move()
    else:
        bench.agent.during = move
    assert (await bench.take("hi")).sequence == 1
    assert bench.actors.calls == ["BeginTurn", "CompleteTurn"] if when == "begin" else ["CompleteTurn"]
    assert bench.pods.host("here").find("alice") is None
    assert bench.said == ["hi"]


async def test_messages_that_waited_for_a_session_in_another_pod_are_answered_in_their_order_although_it_moves():
    bench = Bench()
    going, asked = asyncio.Event(), asyncio.Event()
    bench.agent.during = going.wait
    waiting = [asyncio.create_task(bench.take(f"m{number}", f"key-{number}")) for number in range(5)]
    await until(lambda: bench.agent.contexts and len(bench.actors.session._line.order()) == 4)
    invoke = bench.actors.invoke_actor

    async def last_comes_first(actor_type: str, user_id: str, name: str, arguments: Any, **options: Any) -> Any:
        if name == "BeginTurn" and arguments["turn_id"] != "key-4":
            await asked.wait()
        answer = await invoke(actor_type, user_id, name, arguments, **options)
        if name == "BeginTurn":
            asked.set()
        return answer

    bench.actors.invoke_actor = last_comes_first  # type: ignore[assignment, method-assign]
    bench.actors.pod = "third"
    bench.agent.during = None
    going.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert bench.said == [f"m{number}" for number in range(5)]


async def test_who_is_cancelled_before_the_lease_was_told_gives_it_back():
    bench = Bench(lease_seconds=60)
    bench.actors.slow = asyncio.Event()
    gone = asyncio.create_task(bench.take("gone"))
    await until(lambda: bench.actors.calls == ["BeginTurn"])
    await asyncio.sleep(0.005)
    bench.actors.slow = None
    gone.cancel()
    assert (await asyncio.wait_for(bench.take("next"), 1)).sequence == 1
    assert bench.said == ["next"]


async def test_two_requests_under_one_key_here_are_one_turn_and_the_second_is_told_at_once():
    bench = Bench(lease_seconds=60)
    await bench.here()
    bench.agent.during = lambda: asyncio.sleep(0.02)
    answers = await asyncio.wait_for(asyncio.gather(*(bench.take("hi", "key") for _ in range(3))), 2)
    assert sorted(item.replayed for item in answers) == [False, True, True]
    assert bench.said == ["hi"]


async def test_a_completion_whose_actor_has_moved_goes_through_dapr():
    bench = Bench()
    await bench.here()

    async def move() -> None:
        bench.pods.host("here").deactivate("alice")

    bench.agent.during = move
    assert (await bench.take("hi")).sequence == 1
    assert bench.actors.calls == ["CompleteTurn"]
    assert bench.said == ["hi"]


async def test_messages_that_waited_for_a_session_that_moved_are_answered_in_their_order():
    bench = Bench()
    await bench.here()
    going = asyncio.Event()
    bench.agent.during = going.wait
    texts = [f"m{number}" for number in range(5)]
    waiting = [asyncio.create_task(bench.take(text)) for text in texts]
    await until(lambda: bench.agent.contexts)
    bench.pods.host("here").deactivate("alice")
    bench.agent.during = None
    going.set()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert bench.said == texts


async def test_who_is_cancelled_while_waiting_leaves_the_line():
    bench = Bench(lease_seconds=60)
    session = await bench.here()
    finish = asyncio.Event()
    bench.agent.during = finish.wait
    first = asyncio.create_task(bench.take("first"))
    gone = asyncio.create_task(bench.take("gone"))
    last = asyncio.create_task(bench.take("last"))
    await until(lambda: len(session._line.order()) == 2)
    gone.cancel()
    finish.set()
    await asyncio.gather(first, last)
    assert bench.said == ["first", "last"]


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_whatever_is_raised_between_grant_and_commit_gives_the_lease_back(where: str):
    bench = Bench(lease_seconds=60)
    if where == "here":
        await bench.here()

    async def fail() -> None:
        raise RuntimeError("nobody expected this")

    bench.agent.during = fail
    with pytest.raises(RuntimeError):
        await bench.take("hi")
    bench.agent.during = None
    assert (await asyncio.wait_for(bench.take("again"), 1)).sequence == 1


async def test_a_full_store_is_said_to_be_full():
    bench = Bench()
    error = DaprError(500, "ERR_ACTOR_STATE_TRANSACTION_SAVE", "OOM command not allowed when used memory > 'maxmemory'")
    bench.actors.faults = {"CompleteTurn": [error]}
    with pytest.raises(Problem) as refused:
        await bench.take("hi")
    assert (refused.value.status, refused.value.kind) == (503, "/problems/store-full")


async def test_a_reply_that_is_no_longer_kept_is_not_given_again_but_named():
    bench = Bench()
    for number in range(20):
        await bench.take(f"m{number}", f"key-{number}")
        bench.actors.session.sent(f"key-{number}")
        await until(lambda: bench.actors.session._storing_receipts is None)
    await bench.actors.session.set_summary(SetSummary(text="", through_turn=15))
    bench.pods.receipts.expire()
    with pytest.raises(Problem) as refused:
        await bench.take("m0", "key-0")
    assert (refused.value.status, refused.value.kind) == (504, "/problems/key-expired")
    assert "GET /conversations/s" in refused.value.detail
    assert "m0" not in bench.said
