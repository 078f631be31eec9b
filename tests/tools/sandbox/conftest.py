"""A fake gateway, and the sandbox's stand-ins in this process on real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.sandbox.peer import PEER, PeerSettings, create_app
from tests.tools.sandbox.support import KEY, FakeGateway, RunningPeer, StartPeer


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    fake = FakeGateway()
    app = web.Application()
    app.router.add_put("/_job_status", fake.status)
    async with TestServer(app) as server:
        fake.url = str(server.make_url(""))
        yield fake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "user_data"
    folder.mkdir()
    return folder


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def start_peer(
    gateway: FakeGateway, root: Path, session: aiohttp.ClientSession
) -> AsyncIterator[StartPeer]:
    servers: list[TestServer] = []

    async def start(**settings: Any) -> RunningPeer:
        url = gateway.url
        settings = {"gateway": url, "key": KEY, "root": str(root), **settings}
        app = create_app(PeerSettings(**settings))
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return RunningPeer(server, PEER, session)

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def peer(start_peer: StartPeer) -> RunningPeer:
    return await start_peer()
