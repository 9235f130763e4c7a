"""The journal: who may be owed an event, written before their turn is committed, and adopted when its process stops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from chat_service import journal
from chat_service.journal import KEPT, REGISTRY, Journal
from daca_common.dapr import DaprClient, DaprError
from support.sidecar import FakeSidecar
from support.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(journal, "STOPPED_SECONDS", 0.3)
    monkeypatch.setattr(journal, "GROUP_SECONDS", 0.01)


class Process:
    """A process with a journal; what its actors were asked to publish."""

    def __init__(self, sidecar: FakeSidecar, dapr: DaprClient) -> None:
        self.published: list[str] = []
        self.failures = 0
        self.journal = Journal(dapr, "statestore", self._publish)
        self._sidecar = sidecar
        self._running = asyncio.create_task(self.journal.run())

    async def _publish(self, user_id: str) -> None:
        if self.failures:
            self.failures -= 1
            raise DaprError(500, "ERR_ACTOR_INVOKE_METHOD", "no host")
        self.published.append(user_id)

    @property
    def stored(self) -> set[str]:
        """The users in the stored journal."""
        value = self._sidecar.state["statestore"].get(f"journal-{self.journal._name}")
        return set(value["users"]) if value else set()

    async def kill(self) -> None:
        self._running.cancel()
        for task in self.journal._workers:
            task.cancel()
        await asyncio.wait([self._running])


Start = Callable[[], Awaitable[Process]]


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


@asynccontextmanager
async def processes(sidecar: FakeSidecar) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start() -> Process:
            process = Process(sidecar, await stack.enter_async_context(DaprClient(sidecar.port)))
            stack.push_async_callback(process.kill)
            return process

        yield start


@pytest.fixture
async def start(sidecar: FakeSidecar) -> AsyncIterator[Start]:
    async with processes(sidecar) as start:
        yield start


def writes(sidecar: FakeSidecar) -> int:
    return sidecar.requests.count("POST /v1.0/state/statestore")


class TestWriting:
    async def test_a_user_is_covered_once_the_stored_journal_holds_them(self, start: Start):
        process = await start()
        await process.journal.cover("alice")
        assert process.stored == {"alice"}

    async def test_many_users_share_a_write(self, start: Start, sidecar: FakeSidecar):
        process = await start()
        await process.journal.cover("warm up")
        before = writes(sidecar)
        await asyncio.gather(*(process.journal.cover(f"user-{number}") for number in range(200)))
        assert writes(sidecar) - before <= 5
        assert len(process.stored) == 201

    async def test_who_was_noted_while_the_model_ran_needs_no_write_later(self, start: Start, sidecar: FakeSidecar):
        process = await start()
        process.journal.note("alice")
        await until(lambda: process.stored == {"alice"})
        await asyncio.wait_for(process.journal.cover("alice"), 1)

    async def test_who_goes_on_talking_costs_no_write(self, start: Start, sidecar: FakeSidecar, monkeypatch: Any):
        process = await start()
        await process.journal.cover("alice")
        monkeypatch.setattr(journal, "BEAT_SECONDS", 60)
        monkeypatch.setattr(journal, "STOPPED_SECONDS", 240)
        await asyncio.sleep(0.05)  # the beat under way
        before = writes(sidecar)
        for _ in range(50):
            process.journal.release("alice")
            await process.journal.cover("alice")
        assert writes(sidecar) - before <= 1

    async def test_those_who_are_owed_nothing_are_not_kept_for_ever(self, start: Start):
        process = await start()
        for number in range(KEPT + 50):
            process.journal.note(f"user-{number}")
            process.journal.release(f"user-{number}")
        await process.journal.cover("alice")
        assert len(process.stored) == KEPT + 1

    async def test_a_store_that_fails_is_told_to_who_waits_and_tried_again(self, start: Start, sidecar: FakeSidecar):
        process = await start()
        await process.journal.cover("alice")

        async def down(_: web.Request) -> web.Response:
            return web.json_response({"errorCode": "ERR_STATE_SAVE", "message": "down"}, status=500)

        sidecar.before = down
        with pytest.raises(DaprError):
            await process.journal.cover("bob")
        sidecar.before = None
        await process.journal.cover("bob")
        assert process.stored == {"alice", "bob"}

    async def test_a_drained_process_leaves_only_who_is_owed_something(self, start: Start):
        process = await start()
        await process.journal.cover("owed")
        await process.journal.cover("done")
        process.journal.release("done")
        await process.journal.drain()
        assert process.stored == {"owed"}


class TestAdopting:
    async def test_the_users_of_a_process_that_stopped_are_seen_to(self, start: Start, sidecar: FakeSidecar):
        first, second = await start(), await start()
        for user in ("alice", "bob"):
            await first.journal.cover(user)
        await first.kill()
        await until(lambda: sorted(second.published) == ["alice", "bob"])
        await until(lambda: first.journal._name not in sidecar.state["statestore"].get(REGISTRY)["names"])

    async def test_those_of_a_process_that_lives_are_not(self, start: Start):
        first, second = await start(), await start()
        await first.journal.cover("alice")
        await asyncio.sleep(3 * journal.STOPPED_SECONDS)  # it must not happen
        assert second.published == []

    async def test_whoever_comes_first_after_all_have_stopped_sees_to_them(self, start: Start):
        first = await start()
        await first.journal.cover("alice")
        await first.kill()
        later = await start()
        await until(lambda: later.published == ["alice"])

    async def test_an_actor_that_can_not_be_asked_is_asked_again_and_stays_in_the_journal(self, start: Start):
        first, second = await start(), await start()
        second.failures = 2
        await first.journal.cover("alice")
        await first.kill()
        await until(lambda: "alice" in second.stored)
        await until(lambda: second.published == ["alice"])
        await until(lambda: "alice" not in second.stored)

    async def test_an_adopter_that_stops_in_the_middle_is_adopted_itself(self, start: Start):
        first, second = await start(), await start()
        second.failures = 1_000_000
        await first.journal.cover("alice")
        await first.kill()
        await until(lambda: "alice" in second.stored)
        await second.kill()
        third = await start()
        await until(lambda: third.published == ["alice"])

    async def test_a_process_that_was_only_asleep_goes_on_under_another_name(self, start: Start, sidecar: FakeSidecar):
        sleeper, other = await start(), await start()
        await sleeper.journal.cover("alice")
        name = sleeper.journal._name
        await sleeper.kill()  # it neither writes nor looks
        await until(lambda: "adopted" in sidecar.state["statestore"].get(f"journal-{name}"))
        assert other.published == ["alice"]
        sleeper._running = asyncio.create_task(sleeper.journal.run())
        await sleeper.journal.cover("bob")
        assert sleeper.journal._name != name
        assert "bob" in sleeper.stored
        assert sleeper.journal._name in sidecar.state["statestore"].get(REGISTRY)["names"]

    async def test_a_session_that_ends_here_with_something_unpublished_is_asked_where_it_is_now(self, start: Start):
        process = await start()
        await process.journal.cover("alice")
        process.journal.hand_over("alice")
        await until(lambda: process.published == ["alice"])
        await until(lambda: "alice" not in process.journal._owed)

    async def test_after_the_store_lost_everything_the_journal_is_there_again(self, start: Start, sidecar: FakeSidecar):
        first, second = await start(), await start()
        await first.journal.cover("alice")
        for key in list(sidecar.state["statestore"]):
            sidecar.state["statestore"].delete(key)
        await first.journal.cover("bob")
        await until(lambda: len((sidecar.state["statestore"].get(REGISTRY) or {"names": ()})["names"]) == 2)
        await until(lambda: {"alice", "bob"} <= first.stored)
        await first.kill()
        await until(lambda: sorted(second.published) == ["alice", "bob"])
