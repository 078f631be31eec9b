from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from aiohttp.test_utils import TestServer

from tests.integration.notifier.conftest import Notify
from tests.support.webhooks import Receiver, delivery_settings

Deliver = Callable[..., AbstractAsyncContextManager[TestServer]]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().served() as receiver:
        yield receiver


@pytest.fixture
def deliver(notify: Notify) -> Deliver:
    """Runs a notifier with changed settings of webhooks."""
    return lambda **changes: notify(webhooks=delivery_settings(**changes))
