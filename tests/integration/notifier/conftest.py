from collections.abc import AsyncIterator

import pytest

from tests.support.notifier import FakeMailjet


@pytest.fixture
async def mailjet() -> AsyncIterator[FakeMailjet]:
    async with FakeMailjet().served() as mailjet:
        yield mailjet
