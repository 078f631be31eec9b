"""A cloud of processes, and the peers of its services."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.sandbox import aws
from tests.support.cloud import Cloud, gateway_settings
from tests.support.dispatcher import FakePeer
from tests.support.gateway import APPLICATIONS, Issuer, KeyServer
from tests.support.notifier import FakeMailjet


@pytest.fixture(scope="session")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="session")
def key_server(issuer: Issuer) -> Iterator[KeyServer]:
    server = KeyServer(issuer)
    yield server
    server.close()


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """Address of a stand-in for AWS."""
    with aws.moto_server() as url:
        yield url


@pytest.fixture
def settings(key_server: KeyServer, tmp_path: Path) -> dict[str, Any]:
    applications = tmp_path / "applications.yaml"
    applications.write_text(yaml.safe_dump(APPLICATIONS))
    return gateway_settings(key_server.url, applications)


@pytest.fixture
async def cloud(
    database_url: str, settings: dict[str, Any], issuer: Issuer, tmp_path: Path
) -> AsyncIterator[Cloud]:
    """Processes on a database, of each kind unless a mark chooses one."""
    async with Cloud(database_url, tmp_path, settings, issuer) as cloud:
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
