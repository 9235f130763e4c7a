"""One request for what several tasks ask for in the same moment."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")


class Together(Generic[Asked, Told]):
    """Collects what is asked in one turn of the event loop. Whoever is alone waits for nobody."""

    def __init__(self, do: Callable[[list[Asked]], Awaitable[list[Told]]], most: int) -> None:
        """``do`` answers each of at most ``most`` that are asked together, in their order; what it raises, all get."""
        self._do = do
        self._most = most
        self._waiting: list[tuple[Asked, asyncio.Future[Told]]] = []
        self._at_work: set[asyncio.Task[None]] = set()

    async def ask(self, asked: Asked) -> Told:
        """The answer to one. Who gives up does not take the others along."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Told] = loop.create_future()
        self._waiting.append((asked, told))
        if len(self._waiting) == 1:
            loop.call_soon(self._go)
        return await told

    def _go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), self._most):
            task = asyncio.create_task(self._answer(waiting[first : first + self._most]))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)

    async def _answer(self, waiting: list[tuple[Asked, "asyncio.Future[Told]"]]) -> None:
        try:
            answers = await self._do([asked for asked, _ in waiting])
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            for _, told in waiting:
                if not told.done():
                    told.set_exception(error)
            return
        for (_, told), answer in zip(waiting, answers, strict=True):
            if not told.done():
                told.set_result(answer)
