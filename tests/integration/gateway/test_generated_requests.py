"""Requests that schemathesis derives from `/openapi.json`: none fails, and each answer conforms."""

import shutil
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deploy.sandbox import aws, cognito
from devtools.services import REPOSITORY
from devtools.user_pool import INTERNAL_KEY
from gateway.routes import add_routes, openapi_document
from tests.integration.gateway.conftest import own_places
from tests.support.gateway import Api, Gateway

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def has_no_end(context: Any) -> bool:
    """Whether an operation answers with a stream of events."""
    answers = context.operation.definition.raw["responses"].values()
    return any("text/event-stream" in answer.get("content", {}) for answer in answers)


def document() -> schemathesis.BaseSchema:
    app = web.Application()
    add_routes(app, accounts=True)
    return schemathesis.openapi.from_dict(openapi_document(app, accounts=True)).exclude(has_no_end)


schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")

SCHEMA = document()
ADDRESSES = ip_network("10.0.0.0/8").hosts()


@pytest.fixture(scope="module")
def served(
    aws_url: str,
    environment: dict[str, str],
    sqlite_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway outside production, so that it has every endpoint."""
    folder = tmp_path_factory.mktemp("generated")
    shutil.copy(sqlite_template, folder / "opencloud.db")
    applications = str(REPOSITORY / "application_config.yaml")  # which the examples name
    own = {
        "PROD": "false",
        "APPLICATION_CONFIG_FILE": applications,
        "EMAIL_SENDER_EVENT_TOKEN": "5f0c0d8f2b7e4a61",
        **own_places(folder),
    }
    pool = cognito.create_user_pool(aws_url)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment(aws_url).items():
            patch.setenv(name, value)
        with Gateway({**environment, **pool.environment(), **own}) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def credentials(served: Gateway) -> dict[str, str]:
    """Of a user, and of the worker-facing API."""
    form = {"username": cognito.USER.email, "password": cognito.USER.password}
    token = Api(served).post("/token", form=form).json()["id_token"]
    return {"Authorization": f"Bearer {token}", "x-api-key": INTERNAL_KEY}


@SCHEMA.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_conforms(
    case: schemathesis.Case, served: Gateway, credentials: dict[str, str]
) -> None:
    # wrong passwords are counted by address
    headers = {**credentials, "X-Forwarded-For": str(next(ADDRESSES))}
    response = case.call(base_url=served.base, headers=headers, timeout=100)
    case.validate_response(response, checks=CHECKS)
