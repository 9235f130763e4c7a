"""Chat-service as a whole."""

from collections.abc import AsyncIterator

import pytest
from support.chat import Pod, Start, cluster


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts pods of one cluster."""
    async with cluster() as started:
        yield started


@pytest.fixture
async def pod(start: Start) -> Pod:
    """One pod with the offline model."""
    return (await start())[0]
