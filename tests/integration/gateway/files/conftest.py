"""Callers of a gateway with settings of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway


def staged(gateway: Gateway) -> list[Path]:
    return list((gateway.root / ".opencloud-staging").glob("*"))


@pytest.fixture(autouse=True)
def nothing_staged(request: pytest.FixtureRequest) -> None:
    """Nothing that earlier tests have left staged, such as resumable uploads: of several workers,
    one may run any tests before these."""
    if "gateway" in request.fixturenames:
        for left in staged(request.getfixturevalue("gateway")):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


@pytest.fixture
def api_with(start_gateway: StartGateway, issuer: Issuer) -> Callable[..., Api]:
    """A caller of a gateway that these settings belong to."""
    return lambda **settings: Api(start_gateway(**settings), "user", issuer.token("user"))


@pytest.fixture
def owner(api: Api) -> Api:
    """A user with a file."""
    assert api.upload("data/x", "f.csv", b"hello world").status == 201
    return api
