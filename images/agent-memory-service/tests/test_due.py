"""Whose summary is due, beyond the process: what one leaves another takes over, and nobody's is taken who lives."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from agent_memory_service.documents import Documents
from agent_memory_service.due import LOOKS, SHARDS, Due
from daca_common.dapr import DaprClient, DaprUnavailable
from support.sidecar import FakeSidecar


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    async with FakeSidecar() as sidecar:
        yield sidecar


@pytest.fixture
async def documents(sidecar: FakeSidecar) -> AsyncIterator[Documents]:
    async with DaprClient(sidecar.port) as dapr:
        yield Documents(dapr, "statestore")


def writes(sidecar: FakeSidecar) -> int:
    return sum(request.startswith("POST") for request in sidecar.requests)


async def test_what_a_process_leaves_without_a_word_is_taken_over_when_it_has_not_beaten_for_some_looks(
    documents: Documents,
) -> None:
    dead, living = Due(documents), Due(documents)
    await dead.keep("ann", {"s1": 3})
    for _ in range(LOOKS - 1):
        assert await living.look() == {}
    assert await living.look() == {"ann": {"s1": 3}}
    assert await living.look() == {}
    last = Due(documents)
    await living.leave()  # with it
    assert await last.look() == {"ann": {"s1": 3}}


async def test_nothing_is_taken_from_who_lives(documents: Documents) -> None:
    pods = [Due(documents) for _ in range(3)]
    for number, pod in enumerate(pods):
        await pod.keep(f"user{number}", {"s": 1})
    for _ in range(2 * LOOKS):
        assert [await pod.look() for pod in pods] == [{}] * 3


async def test_who_says_good_bye_leaves_it_at_once_and_leaves_nothing_where_nothing_is_due(
    documents: Documents, sidecar: FakeSidecar
) -> None:
    gone, done, living = Due(documents), Due(documents), Due(documents)
    await gone.keep("ann", {"s1": 3})
    await done.keep("bob", {"s1": 1})
    await done.drop("bob")
    await asyncio.gather(gone.leave(), done.leave())
    assert await living.look() == {"ann": {"s1": 3}}
    await living.drop("ann")
    await living.leave()
    assert list(sidecar.state["statestore"]) == ["due-processes"]
    assert sidecar.state["statestore"].get("due-processes")["processes"] == {}


async def test_who_was_taken_for_gone_and_is_not_writes_its_journal_again(documents: Documents) -> None:
    paused, other = Due(documents), Due(documents)
    await paused.keep("ann", {"s1": 3})
    for _ in range(LOOKS):
        taken = await other.look()
    assert taken == {"ann": {"s1": 3}}
    await other.drop("ann")
    await paused.look()
    await paused.leave()
    assert await other.look() == {"ann": {"s1": 3}}


async def test_users_who_come_at_once_share_a_write_and_who_is_known_costs_none(
    documents: Documents, sidecar: FakeSidecar
) -> None:
    due = Due(documents)
    await due.look()
    await asyncio.gather(*(due.keep(f"user{number}", {"s": 1}) for number in range(500)))
    assert writes(sidecar) <= 1 + 3 * SHARDS
    before = len(sidecar.requests)
    await due.keep("user7", {"s": 1})
    await due.drop("nobody")
    assert len(sidecar.requests) == before


async def test_what_could_not_be_written_is_not_held_to_be(sidecar: FakeSidecar, documents: Documents) -> None:
    due = Due(documents)
    await sidecar.stop()
    for _ in range(2):
        with pytest.raises(DaprUnavailable):
            await due.keep("ann", {"s1": 3})
