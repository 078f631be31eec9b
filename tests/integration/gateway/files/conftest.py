"""Callers of a gateway with settings of its own."""

from collections.abc import Callable

import pytest

from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api


@pytest.fixture
def api_with(start_gateway: StartGateway, issuer: Issuer) -> Callable[..., Api]:
    """A caller of a gateway that these settings belong to."""
    return lambda **settings: Api(start_gateway(**settings), "user", issuer.token("user"))


@pytest.fixture
def owner(api: Api) -> Api:
    """A user with a file."""
    assert api.upload("data/x", "f.csv", b"hello world").status == 201
    return api
