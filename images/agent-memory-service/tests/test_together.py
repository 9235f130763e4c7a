"""What is asked for in the same moment goes out as one request."""

import asyncio

import pytest
from agent_memory_service.together import Together


class Doer:
    """Remembers what it was asked together, and answers each number with its double."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.error: Exception | None = None

    async def __call__(self, asked: list[int]) -> list[int]:
        self.groups.append(asked)
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return [2 * number for number in asked]


async def test_those_who_ask_in_one_moment_are_answered_each_by_one_request() -> None:
    doer = Doer()
    together = Together(doer, 16)
    assert await asyncio.gather(*(together.ask(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert await together.ask(7) == 14
    assert doer.groups == [[0, 1, 2, 3, 4], [7]]


async def test_a_request_has_no_more_than_so_many() -> None:
    doer = Doer()
    together = Together(doer, 2)
    await asyncio.gather(*(together.ask(number) for number in range(5)))
    assert doer.groups == [[0, 1], [2, 3], [4]]


async def test_a_failure_is_that_of_all_who_asked_and_of_no_later_one() -> None:
    doer = Doer()
    together = Together(doer, 16)
    doer.error = ValueError("no")
    told = await asyncio.gather(together.ask(1), together.ask(2), return_exceptions=True)
    assert list(told) == [doer.error, doer.error]
    doer.error = None
    assert await together.ask(3) == 6


async def test_who_gives_up_does_not_take_the_others_along() -> None:
    together = Together(Doer(), 16)
    first, second = asyncio.create_task(together.ask(1)), asyncio.create_task(together.ask(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == 4
    with pytest.raises(asyncio.CancelledError):
        await first
