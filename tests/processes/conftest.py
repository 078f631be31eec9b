"""A cloud of processes, and the peers of its services."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from devtools.user_pool import Issuer
from tests.support.cloud import Cloud
from tests.support.dispatcher import FakePeer
from tests.support.key_server import KeyServer
from tests.support.notifier import FakeMailjet


@pytest.fixture
async def cloud(
    database_url: str, issuer: Issuer, key_server: KeyServer, tmp_path: Path
) -> AsyncIterator[Cloud]:
    """Processes on a database, of each kind unless a mark chooses one."""
    async with Cloud(database_url, tmp_path, issuer, key_server.url) as cloud:
        yield cloud


@pytest.fixture
async def peer(cloud: Cloud) -> AsyncIterator[FakePeer]:
    """A small worker-facing API for the cloud's dispatchers."""
    async with FakePeer().served() as peer:
        cloud.peer_url = peer.url
        yield peer


@pytest.fixture
async def mailjet(cloud: Cloud) -> AsyncIterator[FakeMailjet]:
    """A small Mailjet for the cloud's notifiers."""
    async with FakeMailjet().served() as mailjet:
        cloud.mailjet_url = mailjet.url
        yield mailjet


@pytest.fixture
async def front_end() -> AsyncIterator[str]:
    """The address of an empty page, of another origin than the gateway."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>front end</title>", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield f"http://localhost:{server.port}"
