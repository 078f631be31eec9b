from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from notifier.app import create_app
from tests.support.notifier import FakeMailjet, notifier_settings

Notify = Callable[..., AbstractAsyncContextManager[TestServer]]


@pytest.fixture
async def mailjet() -> AsyncIterator[FakeMailjet]:
    async with FakeMailjet().served() as mailjet:
        yield mailjet


@pytest.fixture
def notify(database_url: str, mailjet: FakeMailjet) -> Notify:
    """Runs a notifier: before `mailjet`, or the Mailjet at `url`, with changed settings."""

    def run(url: str | None = None, **changes: Any) -> AbstractAsyncContextManager[TestServer]:
        settings = notifier_settings(database_url, url or mailjet.url, **changes)
        return TestServer(create_app(settings))

    return run
