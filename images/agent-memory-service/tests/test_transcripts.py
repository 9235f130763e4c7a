"""Transcripts as a state machine: what an append costs, and what is there after any order of appends, repeats, failures
and erasures, with other writers between any two steps."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson
import pytest
from agent_memory_service.documents import Contended, Documents
from agent_memory_service.transcripts import APART_BYTES, NUMBERS_PER_PAGE, Appended, Transcripts
from agent_memory_service.users import SESSIONS_PER_PAGE, Users
from daca_common.conversation_updated import ConversationUpdated
from daca_common.dapr import DaprUnavailable, StateWrite
from support.events import conversation_updated
from support.sidecar import MAX_BODY, Refused, State


class Store:
    """The sidecar's state API without HTTP: it counts, lets others run between any two calls, and fails on demand."""

    def __init__(self) -> None:
        self.state = State()
        self.calls = 0
        self.bytes = 0
        self.lost: Callable[[], str] = lambda: ""
        """Of each call: ``before`` or ``after`` it takes effect the connection breaks, or empty."""
        self.others: Callable[[], int] = lambda: 0
        """How often others run before a call."""

    async def get_states(self, _: str, keys: Sequence[str]) -> list[tuple[Any, str | None]]:
        def get() -> list[tuple[Any, str | None]]:
            return [(self._counted(self.state.get(key)), self.state.etag(key)) for key in keys]

        return await self._call(get)

    async def save_states(self, _: str, writes: Sequence[StateWrite]) -> bool:
        def save() -> bool:
            saved = True
            for write in writes:
                concurrency = "first-write" if write.etag else ""
                try:
                    self.state.set(write.key, self._counted(write.value), write.etag, concurrency, write.ttl_seconds)
                except Refused:
                    saved = False
            return saved

        return await self._call(save)

    async def delete_state(self, _: str, key: str) -> bool:
        await self._call(lambda: self.state.delete(key))
        return True

    async def _call(self, effect: Callable[[], Any]) -> Any:
        self.calls += 1
        for _ in range(self.others()):
            await asyncio.sleep(0)
        lost = self.lost()
        if lost == "before":
            raise DaprUnavailable
        answer = effect()
        if lost:
            raise DaprUnavailable
        return answer

    def _counted(self, value: Any) -> Any:
        if value is not None:
            size = len(orjson.dumps(value))
            assert size < MAX_BODY
            self.bytes += size
        return value


class Service:
    """Transcripts of users over one store. Another is another pod."""

    def __init__(self, store: "Store | Held | Interrupted") -> None:
        documents = Documents(store, "statestore")  # type: ignore[arg-type]
        self.users = Users(documents)
        self.transcripts = Transcripts(documents, self.users)

    async def erase(self, user_id: str, through: int) -> int:
        await self.users.bury(user_id, through)
        turns = 0

        async def stays(session_id: str) -> bool:
            nonlocal turns
            removed, later = await self.transcripts.erase(session_id, user_id, through)
            turns += removed
            return later

        await self.users.erase_sessions(user_id, stays)
        return turns

    async def sequences(self, session_id: str, user_id: str) -> list[int]:
        return [turn["sequence"] for turn in (await self.transcripts.read(session_id, user_id)).turns]


def event(sequence: int, **more: Any) -> ConversationUpdated:
    return ConversationUpdated(**conversation_updated(sequence, **more)["data"])


async def persistent(step: Callable[[], Awaitable[Any]]) -> Any:
    """As the sidecar does that delivers again, and the person who sends the request again."""
    for _ in range(2000):
        try:
            return await step()
        except (DaprUnavailable, Contended):
            await asyncio.sleep(0)
    raise AssertionError("it never succeeds")


async def cost(store: Store, transcripts: Transcripts, events: Iterable[ConversationUpdated]) -> tuple[float, float]:
    """Calls and bytes, read and written, of one append."""
    calls, size, count = store.calls, store.bytes, 0
    for one in events:
        count += 1
        assert await transcripts.append(one) == [Appended.NEW]
    return (store.calls - calls) / count, (store.bytes - size) / count


@pytest.mark.parametrize("gap", [1, 1000], ids=["of one session", "of one session among a thousand"])
async def test_an_append_costs_the_same_however_long_the_transcript_is(gap: int) -> None:
    store = Store()
    transcripts = Service(store).transcripts
    text = {"user_message": "m" * 100, "assistant_reply": "r" * 300, "occurred_at": "2026-11-23T10:00:00.000Z"}

    def events(start: int, stop: int) -> Iterable[ConversationUpdated]:
        return (event(gap * number, turn_id="t" * 36, **text) for number in range(start, stop))

    early = await cost(store, transcripts, events(8, 24))
    await cost(store, transcripts, events(24, 3000))
    late = await cost(store, transcripts, events(3000, 3016))
    await cost(store, transcripts, events(9_992, 10_000))
    later = await cost(store, transcripts, events(100_000, 100_016))
    for calls, size in (late, later):
        assert calls < early[0] + 1.5  # a level of the tree more
        assert size < 1.3 * early[1]


async def test_an_append_costs_the_same_in_a_session_of_2000_users_and_for_a_user_of_2000_sessions() -> None:
    store = Store()
    transcripts = Service(store).transcripts

    def shared(start: int, stop: int) -> Iterable[ConversationUpdated]:
        return (event(1, user_id=f"user{number:05}") for number in range(start, stop))

    def many(start: int, stop: int) -> Iterable[ConversationUpdated]:
        return (event(number, session_id=f"session{number:05}") for number in range(start, stop))

    for events in (shared, many):
        early = await cost(store, transcripts, events(SESSIONS_PER_PAGE, 2 * SESSIONS_PER_PAGE))
        await cost(store, transcripts, events(2 * SESSIONS_PER_PAGE, 2000))
        late = await cost(store, transcripts, events(2000, 2000 + SESSIONS_PER_PAGE))
        assert late[0] < early[0] + 0.1
        assert late[1] < 1.05 * early[1]


async def test_reading_the_end_of_a_long_transcript_reads_what_it_shows() -> None:
    store = Store()
    transcripts = Service(store).transcripts
    for number in range(1, 5000):
        await transcripts.append(event(number))
    calls = store.calls
    page = await transcripts.read("s1", "junaid", limit=3 * NUMBERS_PER_PAGE)
    assert len(page.turns) == 3 * NUMBERS_PER_PAGE
    assert store.calls - calls <= 8
    calls = store.calls
    page = await transcripts.read("s1", "junaid", limit=8, before=40)
    assert [turn["sequence"] for turn in page.turns] == list(range(32, 40))
    assert store.calls - calls <= 5


def some_turns(chance: random.Random, user_id: str) -> list[ConversationUpdated]:
    """Of one user, over some sessions, with numbers near each other or far apart, some with long texts."""
    sessions = [f"s{number}" for number in range(chance.choice([1, 3, 20]))]
    return [
        event(
            number,
            user_id=user_id,
            session_id=chance.choice(sessions),
            user_message=f"<{user_id}:{number}>" + "x" * chance.choice([0, 0, 0, APART_BYTES]),
        )
        for number in sorted(chance.sample(range(1, chance.choice([30, 5_000, 10**7])), 25))
    ]


def texts(store: Store) -> str:
    return b"".join(orjson.dumps(store.state.get(key)) for key in store.state).decode()


async def check(store: Store, pod: Service, turns: list[ConversationUpdated], through: int) -> None:
    """Turns are there in order, once and for good; those of before an erasure are nowhere."""
    everything = texts(store)
    for one in turns:
        assert (f"<{one.user_id}:{one.sequence}>" in everything) == (one.sequence > through)
    for session_id in {one.session_id for one in turns}:
        expected = [one.sequence for one in turns if one.session_id == session_id and one.sequence > through]
        assert await pod.sequences(session_id, turns[0].user_id) == expected


@pytest.mark.parametrize("seed", range(60))
async def test_each_turn_is_there_once_and_an_erased_one_nowhere_whatever_happens_in_whatever_order(seed: int) -> None:
    chance = random.Random(seed)
    store = Store()
    pods = [Service(store) for _ in range(3)]
    ann, bob = some_turns(chance, "ann"), some_turns(chance, "bob")
    through = chance.choice(ann).sequence
    store.others = lambda: chance.randrange(4)
    faults = chance.choice([[], ["before", "after"] * 20])
    store.lost = lambda: faults.pop() if faults and chance.random() < 0.1 else ""

    async def delivery(one: ConversationUpdated) -> None:
        await persistent(lambda: chance.choice(pods).transcripts.append(one))

    async def erasure() -> None:
        for _ in range(chance.choice([0, 50, 400])):
            await asyncio.sleep(0)
        await persistent(lambda: chance.choice(pods).erase("ann", through))

    events = [one for one in ann + bob for _ in range(chance.choice([1, 1, 2]))]
    chance.shuffle(events)
    await asyncio.gather(*(delivery(one) for one in events), erasure())
    store.lost = lambda: ""
    if seed % 2:  # somebody is not sure that it was done, nor is the broker
        await pods[0].erase("ann", through)
        for one in events[:10]:
            await pods[0].transcripts.append(one)
    await check(store, pods[1], ann, through)
    await check(store, pods[1], bob, 0)
    for key in store.state:  # nothing expires with the mark of what was there before
        is_mark = store.state.get(key).get("erased") is True
        assert is_mark == (store.state.ttl(key) not in {None, -1})
    left = sum(one.sequence > through for one in ann)
    assert await pods[2].erase("ann", ann[-1].sequence) == left
    assert "<ann:" not in texts(store)
    assert store.state.get("user-ann")["sessions"] == []


class Held:
    """A pod's way to the store, on which the writes wait that ``these`` picks."""

    def __init__(self, store: Store, these: Callable[[StateWrite], bool]) -> None:
        self._store, self._these = store, these
        self.get_states, self.delete_state = store.get_states, store.delete_state
        self.waits, self.may_go = asyncio.Event(), asyncio.Event()

    async def save_states(self, name: str, writes: Sequence[StateWrite]) -> bool:
        if any(map(self._these, writes)):
            self.waits.set()
            await self.may_go.wait()
        return await self._store.save_states(name, writes)


class Interrupted:
    """A pod's way to the store; once a turn's own document has been removed, somebody else comes first."""

    def __init__(self, store: Store, first: Callable[[], Awaitable[Any]]) -> None:
        self._store, self._first = store, first
        self.get_states, self.save_states = store.get_states, store.save_states

    async def delete_state(self, name: str, key: str) -> bool:
        deleted = await self._store.delete_state(name, key)
        if key.startswith("turns-"):
            await self._first()
        return deleted


async def test_a_large_turn_that_is_delivered_twice_leaves_nothing_where_it_is_erased_meanwhile() -> None:
    store = Store()
    held = Held(store, lambda write: write.etag is None)  # a turn's own document
    turn = event(1, user_message="<large>" + "x" * APART_BYTES)
    again = asyncio.create_task(Service(held).transcripts.append(turn))
    await held.waits.wait()
    await Service(store).transcripts.append(turn)

    async def second_delivery_ends() -> None:
        held.may_go.set()
        await again

    assert await Service(Interrupted(store, second_delivery_ends)).erase("junaid", 1) == 1
    assert "<large>" not in texts(store)


@pytest.mark.parametrize("waits", ["turns-s1:junaid", "turns-s1:junaid:0"])
async def test_a_turn_that_is_added_while_an_erasure_is_repeated_is_found_by_the_next(waits: str) -> None:
    store = Store()
    service = Service(store)
    await service.transcripts.append(event(1))
    await service.erase("junaid", 1)
    held = Held(store, lambda write: write.key == waits)
    added = asyncio.create_task(Service(held).transcripts.append(event(2, user_message="<later>")))
    await held.waits.wait()
    await service.erase("junaid", 1)
    held.may_go.set()
    await added
    assert await service.sequences("s1", "junaid") == [2]
    assert await service.erase("junaid", 2) == 1
    assert "<later>" not in texts(store)


async def test_a_turn_that_is_added_while_it_is_erased_leaves_nothing_where_one_was_erased_before() -> None:
    store = Store()
    service = Service(store)
    await service.transcripts.append(event(1))
    await service.erase("junaid", 1)
    held = Held(store, lambda write: write.key == "turns-s1:junaid:0")
    added = asyncio.create_task(Service(held).transcripts.append(event(2, user_message="<later>")))
    await held.waits.wait()
    await service.erase("junaid", 2)
    held.may_go.set()
    assert await added == [Appended.ERASED]
    assert "<later>" not in texts(store)


@pytest.mark.parametrize("others", [1, 3])
async def test_an_erasure_of_very_many_sessions_goes_on_where_it_broke_off(others: int) -> None:
    store = Store()
    service = Service(store)
    for number in range(1, 3 * SESSIONS_PER_PAGE):
        await service.transcripts.append(event(number, session_id=f"s{number}"))
    store.others = lambda: others
    budget = 150

    def lost() -> str:
        nonlocal budget
        budget -= 1
        return "before" if budget < 0 else ""

    store.lost = lost
    rounds = 0
    while True:
        rounds += 1
        budget = 150
        try:
            await service.erase("junaid", 10**6)
            break
        except DaprUnavailable:
            assert rounds < 10
    assert rounds > 1
    store.lost = lambda: ""
    assert await service.sequences("s1", "junaid") == []
    assert store.state.get("user-junaid")["sessions"] == []
    assert not [key for key in store.state if key.startswith("user-junaid:")]
