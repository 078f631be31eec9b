from collections.abc import AsyncIterator

import pytest

from tests.support.dispatcher import FakePeer


@pytest.fixture
async def peer() -> AsyncIterator[FakePeer]:
    async with FakePeer().served() as peer:
        yield peer
