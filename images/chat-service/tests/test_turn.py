"""The turn, as one process takes it: waiting, retrying, starting again, giving up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from chat_service.agent import Context
from chat_service.memory import Memory
from chat_service.session import AddMessage, BeginTurn, CompleteTurn, Session, SessionHost, TurnRef
from chat_service.settings import Settings
from chat_service.turn import Turn, Turns
from daca_common.dapr import DaprError, DaprUnavailable
from daca_common.problems import Problem
from support.store import MemoryStore


class Actors:
    """Stands in for the sidecar: calls the session of one user, and fails as Dapr does when it is told to."""

    def __init__(self, lease_seconds: float = 5.0) -> None:
        self.store = MemoryStore()
        self.host = SessionHost("pod", self.store, lease_seconds, lambda _: None, lambda _: None)  # type: ignore[arg-type]
        self.session: Session
        self.calls: list[str] = []
        self.faults: dict[str, list[Exception]] = {}
        self.lost_answers: dict[str, int] = {}

    async def invoke_actor(self, _: str, user_id: str, method: str, arguments: Any, **__: Any) -> Any:
        self.calls.append(method)
        if self.faults.get(method):
            raise self.faults[method].pop(0)
        self.session = await self.host.activate(user_id)
        answer = await {
            "BeginTurn": lambda: self.session.begin(BeginTurn(**arguments)),
            "RenewTurn": lambda: self.session.renew(TurnRef(**arguments)),
            "CompleteTurn": lambda: self.session.complete(CompleteTurn(**arguments)),
            "AbandonTurn": lambda: self.session.abandon(TurnRef(**arguments)),
            "ClearHistory": self.session.clear,
        }[method]()
        if self.lost_answers.get(method):
            self.lost_answers[method] -= 1
            raise DaprUnavailable("the connection broke")
        return answer


class Memories:
    async def fetch(self, user_id: str) -> Memory:
        return Memory.of_new_user(user_id)


class Agent:
    """Answers with what it is given; ``during`` runs while the model would."""

    def __init__(self) -> None:
        self.during: Callable[[], Awaitable[object]] | None = None
        self.contexts: list[Context] = []

    async def reply(self, text: str, context: Context, on_token: Callable[[str], None] | None = None) -> str:
        self.contexts.append(context)
        if on_token:
            on_token(text)
        if self.during:
            await self.during()
        return f"reply to {text}"


class Heard:
    def __init__(self) -> None:
        self.events: list[str] = []

    def token(self, text: str) -> None:
        self.events.append(text)

    def restart(self) -> None:
        self.events.append("(restart)")


class Bench:
    def __init__(self, lease_seconds: float = 5.0, **settings: Any) -> None:
        self.actors = Actors(lease_seconds)
        self.agent = Agent()
        self.turns = Turns(self.actors, Memories(), self.agent, Settings(**settings))  # type: ignore[arg-type]

    @property
    def said(self) -> list[str]:
        return [item.user_text for item in self.actors.store.of("alice").exchanges]

    async def overtake(self) -> None:
        await self.actors.session.add_message(AddMessage(user_text="overtook", reply_text="yes"))


def turn(text: str = "hi", turn_id: str | None = None) -> Turn:
    return Turn(user_id="alice", turn_id=turn_id or uuid4().hex, session_id="s", text=text, fingerprint=text)


async def test_a_turn_is_answered_from_the_window_and_committed():
    bench = Bench()
    await bench.turns.take(turn("Hi there"))
    committed = await bench.turns.take(turn("And now?"))
    assert (committed.reply, committed.sequence, committed.replayed) == ("reply to And now?", 2, False)
    assert bench.agent.contexts[1].window == (("Hi there", "reply to Hi there"),)
    assert bench.said == ["Hi there", "And now?"]


async def test_a_retry_under_the_same_key_gets_the_same_reply_without_the_model():
    bench = Bench()
    first = await bench.turns.take(turn("hi", "key"))
    again = await bench.turns.take(turn("hi", "key"))
    assert again.replayed
    assert (again.reply, again.sequence, again.occurred_at) == (first.reply, first.sequence, first.occurred_at)
    assert len(bench.agent.contexts) == 1


async def test_two_requests_under_one_key_at_once_are_one_turn():
    bench = Bench()
    bench.agent.during = lambda: asyncio.sleep(0.02)
    answers = await asyncio.gather(*(bench.turns.take(turn("hi", "key")) for _ in range(3)))
    assert sorted(item.replayed for item in answers) == [False, True, True]
    assert bench.said == ["hi"]


async def test_a_key_used_for_another_message_is_refused():
    bench = Bench()
    await bench.turns.take(turn("hi", "key"))
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("something else", "key"))
    assert refused.value.status == 422
    assert refused.value.errors[0]["field"] == "Idempotency-Key"


async def test_messages_of_one_user_at_once_all_see_the_ones_before_them():
    bench = Bench()
    texts = [f"m{number}" for number in range(30)]
    await asyncio.gather(*(bench.turns.take(turn(text)) for text in texts))
    assert bench.said == texts
    assert [len(context.window) for context in bench.agent.contexts] == [0, 1, 2, 3, 4] + [5] * 25


async def test_a_turn_that_is_overtaken_starts_again_and_says_so():
    bench = Bench()
    heard = Heard()

    async def once() -> None:
        bench.agent.during = None
        await bench.overtake()

    bench.agent.during = once
    committed = await bench.turns.take(turn("hi"), heard)
    assert committed.sequence == 2
    assert heard.events == ["hi", "(restart)", "hi"]
    assert bench.said == ["overtook", "hi"]


async def test_a_turn_that_is_overtaken_again_and_again_gives_up_without_a_trace():
    bench = Bench()
    bench.agent.during = bench.overtake
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("hi"))
    assert refused.value.status == 409
    assert bench.said == ["overtook"] * 3


async def test_a_failed_model_call_stores_nothing_and_frees_the_session_at_once():
    bench = Bench(lease_seconds=60)

    async def fail() -> None:
        raise Problem(502, "the model failed")

    bench.agent.during = fail
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("hi"))
    assert (refused.value.status, bench.said) == (502, [])
    bench.agent.during = None
    assert (await asyncio.wait_for(bench.turns.take(turn("again")), 1)).sequence == 1


async def test_the_lease_is_renewed_while_the_model_runs():
    bench = Bench(lease_seconds=0.06)
    bench.agent.during = lambda: asyncio.sleep(0.2)
    await asyncio.gather(bench.turns.take(turn("slow")), bench.turns.take(turn("next")))
    assert bench.actors.calls.count("RenewTurn") >= 3
    assert len(bench.agent.contexts) == 2  # neither ran twice


@pytest.mark.parametrize("error", [DaprUnavailable("refused"), DaprError(500, "ERR_ACTOR_INVOKE_METHOD", "no host")])
async def test_a_session_that_cannot_be_reached_for_a_moment_is_asked_again(error: Exception):
    bench = Bench()
    bench.actors.faults = {"BeginTurn": [error, error], "CompleteTurn": [error]}
    assert (await bench.turns.take(turn("hi"))).sequence == 1
    assert bench.said == ["hi"]


async def test_a_completion_whose_answer_is_lost_is_settled_by_its_turn_id():
    bench = Bench()
    bench.actors.lost_answers = {"CompleteTurn": 2}
    committed = await bench.turns.take(turn("hi"))
    assert committed.reply == "reply to hi"
    assert bench.said == ["hi"]


async def test_a_begin_whose_answer_is_lost_does_not_wait_for_its_own_lease():
    bench = Bench(lease_seconds=60)
    bench.actors.lost_answers = {"BeginTurn": 1}
    assert (await asyncio.wait_for(bench.turns.take(turn("hi")), 2)).sequence == 1


async def test_a_session_that_stays_out_of_reach_is_a_503_before_and_an_unknown_outcome_after_the_model(monkeypatch):
    monkeypatch.setattr("chat_service.turn.COMPLETE_SECONDS", 0.1)
    down: list[Exception] = [DaprUnavailable("refused")] * 99
    bench = Bench(turn_wait_seconds=0.1)
    bench.actors.faults = {"BeginTurn": list(down)}
    with pytest.raises(Problem) as unreachable:
        await bench.turns.take(turn("hi"))
    assert unreachable.value.status == 503
    bench.actors.faults = {"CompleteTurn": list(down)}
    with pytest.raises(Problem) as unknown:
        await bench.turns.take(turn("hi", "my-key"))
    assert unknown.value.status == 504
    assert "Idempotency-Key: my-key" in unknown.value.detail


@pytest.mark.parametrize(("when_busy", "status"), [("wait", 503), ("reject", 409)])
async def test_a_second_message_waits_its_turn_for_so_long_or_is_rejected_by_setting(when_busy: str, status: int):
    bench = Bench(turn_wait_seconds=0.1, turn_when_busy=when_busy)
    finish = asyncio.Event()
    bench.agent.during = finish.wait
    first = asyncio.create_task(bench.turns.take(turn("first")))
    await asyncio.sleep(0.01)
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("second"))
    assert refused.value.status == status
    finish.set()
    assert (await first).sequence == 1


async def test_draining_refuses_new_turns_and_waits_for_the_open_ones():
    bench = Bench()
    finish = asyncio.Event()
    bench.agent.during = finish.wait
    first = asyncio.create_task(bench.turns.take(turn("first")))
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(bench.turns.drain())
    await asyncio.sleep(0.01)
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("second"))
    assert (refused.value.status, draining.done()) == (503, False)
    finish.set()
    await asyncio.wait_for(draining, 1)
    assert (await first).sequence == 1


async def test_a_reply_that_is_no_longer_kept_is_not_given_again_but_named():
    bench = Bench()
    await bench.turns.take(turn("hi", "key"))
    for number in range(6):
        await bench.turns.take(turn(f"m{number}"))
    bench.actors.session.sent = frozenset({item.turn_id for item in bench.actors.store.of("alice").outbox})
    await bench.actors.session.mark_published()
    with pytest.raises(Problem) as refused:
        await bench.turns.take(turn("hi", "key"))
    assert refused.value.status == 409
    assert "GET /conversations/s" in refused.value.detail


async def test_clearing_the_history_reaches_the_actor():
    bench = Bench()
    await bench.turns.take(turn("hi"))
    await bench.turns.clear_history("alice")
    assert bench.actors.store.of("alice").window == ()
