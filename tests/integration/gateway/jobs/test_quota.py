"""How many jobs a user may have under way."""

import asyncio

import pytest

from common.database.engine import Database
from devtools.database import database_settings
from devtools.user_pool import Issuer
from gateway.jobs.errors import TooManyUnfinished
from gateway.jobs.insertion import JobInsertion
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api
from tests.support.records import submission


def test_one_job_too_many_is_refused_until_another_one_ends(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(MAX_UNFINISHED_JOBS="2")
    ada, bob = (Api(gateway, user, issuer.token(user)) for user in ("ada", "bob"))
    nothing = {"files_down": {}}
    jobs = [ada.submit(attributes=nothing).json()["id"] for _ in range(2)]
    refused = ada.submit(attributes=nothing)
    assert (refused.status, refused.detail) == (429, "Limit exceeded: 2 unfinished jobs")
    assert int(refused.headers["retry-after"]) > 0
    assert bob.submit(attributes=nothing).status == 201
    assert ada.delete(f"/jobs/{jobs[0]}").status == 204
    assert ada.submit(attributes=nothing).status == 201
    assert ada.submit(attributes={"files_down": {"data_ids": [".."]}}).status == 422


async def test_racing_submissions_never_exceed_the_limit(
    database: Database, database_url: str
) -> None:
    databases = [Database(database_settings(database_url)) for _ in range(3)]  # of three gateways
    insertions = [JobInsertion(one, unfinished=7) for one in databases]
    outcomes = await asyncio.gather(
        *(each.one(submission(user)) for _ in range(5) for each in insertions for user in "ab"),
        return_exceptions=True,
    )
    assert sum(isinstance(one, dict) for one in outcomes) == 14
    assert sum(isinstance(one, TooManyUnfinished) for one in outcomes) == 16
    with pytest.raises(TooManyUnfinished):
        await insertions[0].check_unfinished("a")
    await insertions[0].check_unfinished("c")
    for one in databases:
        await one.close()
