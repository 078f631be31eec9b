from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from dispatcher.app import create_app
from tests.support.dispatcher import FakePeer, dispatcher_settings

Dispatch = Callable[..., AbstractAsyncContextManager[TestServer]]


@pytest.fixture
async def peer() -> AsyncIterator[FakePeer]:
    async with FakePeer().served() as peer:
        yield peer


@pytest.fixture
def dispatch(database_url: str, peer: FakePeer, tmp_path: Path) -> Dispatch:
    """Runs a dispatcher: before `peer`, or the peer at `url`, with changed settings."""

    def run(url: str | None = None, **changes: Any) -> AbstractAsyncContextManager[TestServer]:
        settings = dispatcher_settings(database_url, url or peer.url, tmp_path, **changes)
        return TestServer(create_app(settings))

    return run
