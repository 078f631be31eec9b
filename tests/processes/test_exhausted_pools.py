"""A database with an exhausted pool, or with a lock that blocks writers."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from common.database.engine import Database
from common.database.tables import job_events, jobs
from devtools.user_pool import INTERNAL_KEY
from devtools.waiting import eventually
from tests.support.cloud import Answer, Caller, Cloud, locked_jobs, on_postgresql, on_sqlite
from tests.support.gateway import job_body
from tests.support.records import rows
from tests.support.slowness import Elapsed, slowness

POOL_TIMEOUT = 0.5
WITHOUT_DATABASE = ("/", "/files/", "/user", "/jobs/applications")
PATIENCE = 5.0
"""Seconds for which an update waits for the database before it is refused."""


def submission(name: str) -> dict[str, Any]:
    return job_body(job_name=name, attributes={"files_down": {}})


async def update(caller: Caller, job_id: int, status: str) -> Answer:
    body = {"job_id": job_id, "status": status, "runtime_details": "details"}
    return await caller.ask("PUT", "/_job_status", json=body, headers={"x-api-key": INTERNAL_KEY})


def assert_retry_later(answer: Answer) -> None:
    assert answer.status == 503, answer
    assert answer.headers["Retry-After"]
    assert "database" in answer.text


@on_postgresql
async def test_an_exhausted_pool_is_answered_at_once_and_affects_nothing_else(
    cloud: Cloud, database: Database
) -> None:
    caller = cloud.caller
    gateway = await cloud.gateway(DATABASE_POOL_SIZE=2, DATABASE_POOL_TIMEOUT=POOL_TIMEOUT)
    _, job_id = await caller.submit("before")
    async with locked_jobs(cloud, "ACCESS EXCLUSIVE"):
        with Elapsed(gateway) as at_once:
            pages = [asyncio.ensure_future(caller.ask("GET", "/jobs")) for _ in range(20)]
            # all but those that have a connection
            await eventually(lambda: sum(page.done() for page in pages) == 18)
        assert at_once.seconds < 8 * POOL_TIMEOUT * slowness()
        answers = [page.result() for page in pages if page.done()]
        with Elapsed(gateway) as in_all:
            updates = [asyncio.ensure_future(update(caller, job_id, "running")) for _ in range(10)]
            with Elapsed(gateway) as at_once:
                answers += await asyncio.gather(
                    *(caller.ask("POST", "/jobs", json=submission(f"job-{n}")) for n in range(20)),
                    *(caller.ask("GET", f"/jobs/{job_id}") for _ in range(20)),
                    caller.ask("DELETE", f"/jobs/{job_id}"),
                )
            for answer in answers:
                assert_retry_later(answer)
            assert at_once.seconds < 8 * POOL_TIMEOUT * slowness()
            with Elapsed(gateway) as elapsed:
                elsewhere = await asyncio.gather(
                    *(caller.ask("GET", path) for path in WITHOUT_DATABASE),
                    caller.upload("data/x", "f", b"content"),
                )
            assert [answer.status for answer in elsewhere] == [200, 200, 200, 200, 201]
            assert elapsed.seconds < 4 * POOL_TIMEOUT * slowness()
            assert await gateway.probe("/readyz") == 200
            for answer in await asyncio.gather(*updates):
                assert_retry_later(answer)
                assert answer.seconds > PATIENCE - 0.5
        assert in_all.seconds < (PATIENCE + 4 * POOL_TIMEOUT) * slowness()

    assert {answer.status for answer in await asyncio.gather(*pages)} == {200, 503}
    assert (await update(caller, job_id, "running")).status == 200
    assert (await caller.submit("after"))[0] == 201
    assert [row["job_name"] for row in await rows(database, jobs)] == ["before", "after"]


@on_postgresql
async def test_an_update_waits_for_a_connection_that_comes_free(cloud: Cloud) -> None:
    caller = cloud.caller
    pool_timeout = 0.2
    gateway = await cloud.gateway(DATABASE_POOL_SIZE=1, DATABASE_POOL_TIMEOUT=pool_timeout)
    _, job_id = await caller.submit("job")
    in_use = 'opencloud_database_connections{state="in_use"}'
    async with locked_jobs(cloud, "ACCESS EXCLUSIVE"):
        page = asyncio.ensure_future(caller.ask("GET", "/jobs"))
        await eventually(lambda: gateway.metric(in_use))
        running = asyncio.ensure_future(update(caller, job_id, "running"))
        await asyncio.sleep(3 * pool_timeout)
        assert not running.done()
    assert (await running).status == 200
    assert (await page).status == 200


@on_sqlite
async def test_a_locked_sqlite_file_delays_only_writers_and_for_a_bounded_time(
    cloud: Cloud, database: Database
) -> None:
    caller = cloud.caller
    gateway = await cloud.gateway()
    _, job_id = await caller.submit("before")
    async with locked_jobs(cloud), AsyncExitStack() as stack:
        in_all = stack.enter_context(Elapsed(gateway))
        writing = [
            asyncio.ensure_future(caller.ask("POST", "/jobs", json=submission("during"))),
            asyncio.ensure_future(update(caller, job_id, "running")),
        ]
        with Elapsed(gateway) as elapsed:
            reading = await asyncio.gather(
                *(caller.ask("GET", path) for path in ("/jobs", f"/jobs/{job_id}", "/"))
            )
        assert [answer.status for answer in reading] == [200, 200, 200]
        assert elapsed.seconds < 2.0 * slowness()
        for answer in await asyncio.gather(*writing):
            assert_retry_later(answer)
    assert in_all.seconds < 2 * PATIENCE * slowness()
    assert (await update(caller, job_id, "running")).status == 200
    assert (await caller.submit("after"))[0] == 201
    statuses = [row["status"] for row in await rows(database, job_events)]
    assert statuses == ["queued", "running", "queued"]
