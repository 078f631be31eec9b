"""What thousands of keep-alives cost."""

import asyncio
import os
from collections import Counter
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import job_events
from common.jobs.lifecycle import Report, Source, Status
from devtools.user_pool import INTERNAL_KEY
from devtools.waiting import eventually
from gateway.job_status.service import JobStatusService
from tests.support.clients import statuses
from tests.support.cloud import Cloud, on_postgresql
from tests.support.records import add_handover, add_job, rows

COUNT = int(os.environ.get("TEST_KEEP_ALIVES", "2000"))
CONNECTIONS = 20

TALLY = {
    "sqlite": """
        CREATE TABLE tally (n INTEGER);
        CREATE TRIGGER count_updates AFTER UPDATE ON jobs
            BEGIN INSERT INTO tally VALUES (1); END
    """,
    "postgresql": """
        CREATE TABLE tally (n INTEGER);
        CREATE FUNCTION count_one() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN INSERT INTO tally VALUES (1); RETURN NULL; END';
        CREATE TRIGGER count_updates AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION count_one()
    """,
}
"""Count the writes to `jobs`; each statement ends at the end of a line."""


def keep_alive(number: int) -> bytes:
    body = orjson.dumps({"job_id": number, "status": "running", "runtime_details": ""})
    head = (
        "PUT /_job_status HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"x-api-key: {INTERNAL_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("jobs_running", [1, CONNECTIONS])
async def test_identical_keep_alives_add_no_event_and_next_to_no_writes(
    cloud: Cloud, database: Database, jobs_running: int
) -> None:
    await cloud.gateway()
    ids = [await add_handover(database) for _ in range(jobs_running)]
    for job_id in ids:
        assert await cloud.caller.report(job_id, "running") == 200
    events = await rows(database, job_events)
    async with database.transaction() as tx:
        for statement in TALLY[tx.dialect.name].split(";\n"):
            await tx.execute(text(statement))
    started = asyncio.get_running_loop().time()
    answers = await asyncio.gather(
        *(
            statuses(cloud.port, [keep_alive(ids[lane % len(ids)])] * (COUNT // CONNECTIONS))
            for lane in range(CONNECTIONS)
        )
    )
    seconds = asyncio.get_running_loop().time() - started
    assert sum(answers, Counter()) == {200: COUNT}
    assert await rows(database, job_events) == events
    async with database.reading() as connection:
        updates = (await connection.execute(text("SELECT count(*) FROM tally"))).scalar_one()
    assert updates <= jobs_running * (1 + seconds // 30)


@on_postgresql
async def test_updates_of_last_seen_at_stay_on_their_page(database: Database) -> None:
    details = "epoch 1 of 100\n" * 70
    ids = [
        await add_job(
            database,
            id=number,
            worker_number=number,
            status="running",
            runtime_details=details,
            last_seen_at=utc_now(-3600.0),
        )
        for number in range(1, 301)
    ]
    notifier = ChannelNotifier(database)
    intake = JobStatusService(database, notifier, touch_every=30.0)
    report = Report(Status.RUNNING, None, Source.WORKER)
    for job_id in ids:  # at once they would share a transaction, and a page has room for some
        await intake.report(job_id, report)

    async def counts() -> Any:
        async with database.reading() as connection:
            statement = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
            row = (await connection.execute(text(f"{statement} WHERE relname = 'jobs'"))).one()
        return row if row.n_tup_upd >= len(ids) else None

    await notifier.close()
    await database.engine.dispose()  # a backend reports its counts when it ends
    updates, on_their_page = await eventually(counts)
    assert updates == len(ids)
    assert on_their_page >= 0.95 * updates
