"""Waiting for what no event tells."""

import asyncio
from collections.abc import Callable


async def until(reached: Callable[[], object], seconds: float = 5.0) -> None:
    """Returns as soon as ``reached`` is true; fails after some seconds."""
    async with asyncio.timeout(seconds):
        while not reached():  # noqa: ASYNC110 - a test looks at what has no event
            await asyncio.sleep(0.001)
