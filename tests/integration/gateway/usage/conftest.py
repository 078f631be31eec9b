"""Gateways with a quota, on both storages."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from deploy.sandbox import aws
from devtools.user_pool import Issuer
from devtools.waiting import eventually
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, fresh


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool]], None]:
    """Waits until a check is true."""
    return lambda check: asyncio.run(_until(check))


async def _until(check: Callable[[], bool]) -> None:
    await eventually(lambda: asyncio.to_thread(check))


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with aws.moto_server() as url:
        aws.create_bucket(url, "files")
        yield url


@pytest.fixture
def start_on_s3(
    start_gateway: StartGateway, issuer: Issuer, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Api]:
    """A new caller of a new gateway whose files are on S3."""

    def start(**changes: str) -> Api:
        for name, value in aws.environment(s3_url).items():
            monkeypatch.setenv(name, value)
        user = fresh("user")
        gateway = start_gateway(
            FILESYSTEM="s3", S3_BUCKET="files", USER_DATA_ROOT_PATH="users", **changes
        )
        return Api(gateway, user, issuer.token(user))

    return start
