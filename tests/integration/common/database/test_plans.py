"""Plans of the statements that run often, with years of finished rows behind what is due."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import handovers
from common.jobs.deletion import take_over_interrupted
from common.jobs.heartbeat import PEER, beat
from common.jobs.lifecycle import Report, Source, Status
from common.outbox.maintenance import OutboxMaintenance
from devtools.postgres import Server, run_apart
from dispatcher.stalled import StalledJob, Sweep
from gateway.job_status.service import JobStatusService
from gateway.jobs.store import JobStore
from tests.conftest import settings_of
from tests.support import dispatcher, notifier

HISTORY = int(os.environ.get("TEST_HISTORY", "200000"))
LARGE = ("jobs", "handovers", "emails", "handover_numbers", "job_events")

SEED = """
SET session_replication_role = replica;
INSERT INTO jobs (id, user_id, user_email, job_name, date_created, date_started, date_finished,
                  status, paths_out, priority, application, attributes, last_seen_at, worker_number)
SELECT n, 'user-' || n % 500, 'user@example.com', 'job-' || n, at, at, at,
       CASE WHEN n % 1000 = 0 THEN 'running' WHEN n % 10 = 0 THEN 'error' ELSE 'finished' END,
       '{}', 0, '{}', '{}', at, n
FROM (SELECT n, timezone('utc', now()) - make_interval(mins => :count - n) AS at
      FROM generate_series(1, :count) AS n) AS ages;
SELECT setval(pg_get_serial_sequence('jobs', 'id'), :count);
INSERT INTO job_events (job_id, status, source, created_at)
SELECT id, status, 'worker', date_created FROM jobs;
INSERT INTO handovers (state, due_at, created_at, settled_at, job_id, priority, number, payload)
SELECT CASE WHEN id % 2000 = 0 THEN 'pending' WHEN id % 2000 = 1 THEN 'sending'
            WHEN id % 2000 = 2 THEN 'in_doubt' ELSE 'done' END,
       date_created, date_created, CASE WHEN id % 2000 > 2 THEN date_created END, id, 0, id, '{}'
FROM jobs;
INSERT INTO emails (state, due_at, created_at, settled_at, job_id, kind, recipient, custom_id)
SELECT CASE WHEN id % 2000 = 0 THEN 'pending' ELSE 'done' END, date_created, date_created,
       CASE WHEN id % 2000 > 0 THEN date_created END, id, 'finished', 'user@example.com', id
FROM jobs;
INSERT INTO handover_numbers (number, job_id, created_at)
SELECT :count + id, id, date_created FROM jobs WHERE id % 10 = 0;
ANALYZE
"""
"""The first line leaves out the checks of foreign keys, which would take most of the time."""


@dataclass
class Plans:
    """Plans of what a database was asked to do."""

    found: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(f"{statement}\n{plan}" for statement, plan in self.found)

    @property
    def large_scans(self) -> list[str]:
        return re.findall(rf"Seq Scan on (?:{'|'.join(LARGE)})\b", self.text)

    def uses(self, index: str) -> bool:
        return re.search(rf"\b(?:{index})\b", self.text) is not None


@contextmanager
def recorded(database: Database) -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """The statements that the database is asked to run meanwhile, as the driver gets them."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        seen.append((statement, parameters[0] if many else parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def plans_of(database: Database, work: Awaitable[Any]) -> Plans:
    """Do the work, and explain every statement of it: with its parameters, and for any."""
    with recorded(database) as seen:
        await work
    plans = Plans()
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for statement, parameters in seen:
            if not re.match(r"\s*(SELECT|UPDATE|DELETE|WITH|INSERT|\()", statement):
                continue
            for mode in ("force_custom_plan", "force_generic_plan"):
                await driver.execute(f"SET plan_cache_mode = {mode}")
                lines = await _explain(driver, statement, parameters)
                plans.found.append((f"-- {mode}\n{statement}", "\n".join(lines)))
        await driver.execute("RESET plan_cache_mode")
    return plans


async def _explain(driver: Any, statement: str, parameters: Any) -> list[str]:
    rows = await driver.fetch(f"EXPLAIN {statement}", *parameters)
    return [row[0] for row in rows]


@pytest.fixture(scope="module")
def url(postgres: Server, postgres_template: str) -> Iterator[str]:
    name = postgres.create_database(template=postgres_template)

    async def seed() -> None:
        connection: Any = await asyncpg.connect(postgres.url_of(name))
        await connection.execute(SEED.replace(":count", str(HISTORY)))
        await connection.close()

    run_apart(seed())
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
async def large(url: str) -> AsyncIterator[Database]:
    database = Database(settings_of(url))
    yield database
    await database.close()


async def settle(database: Database) -> None:
    outbox = dispatcher.outbox_of(database)
    await outbox.done(await outbox.claim(16))


async def retry(database: Database) -> None:
    outbox = dispatcher.outbox_of(database)
    await outbox.retry(await outbox.claim(16), 600.0, "HTTP 503")


async def keep_alive(database: Database, number: int) -> None:
    notifier = ChannelNotifier(database)
    intake = JobStatusService(database, notifier, touch_every=30.0)
    await intake.report(number, Report(Status.RUNNING, None, Source.WORKER))
    await notifier.close()


async def look_for_silence(database: Database) -> list[StalledJob]:
    await beat(database, PEER)
    return await Sweep(database=database, notifier=ChannelNotifier(database)).find(60.0)


CASES: dict[str, tuple[Callable[[Database], Awaitable[Any]], set[str]]] = {
    "claim": (lambda db: dispatcher.outbox_of(db).claim(16), {"ix_handovers_pending"}),
    "claim of one": (lambda db: dispatcher.outbox_of(db).claim_one(), {"ix_handovers_pending"}),
    "claim of one where all were tried": (
        lambda db: (outbox := dispatcher.outbox_of(db))._claims.claim(outbox._claim_longest_due, 1),
        {"ix_handovers_pending"},
    ),
    "claim of held": (
        lambda db: dispatcher.outbox_of(db).claim_held(1),
        {"ix_handovers_unsettled"},
    ),
    "claim of doubtful": (
        lambda db: dispatcher.outbox_of(db).claim_doubtful(200),
        {"ix_handovers_unsettled"},
    ),
    "claim of mails": (
        lambda db: notifier.outbox_of(db).claim(50),
        {"ix_emails_pending"},
    ),
    "whether there is work": (
        lambda db: dispatcher.outbox_of(db).has_work(60.0),
        {"ix_handovers_pending", "ix_handovers_unsettled"},
    ),
    "settlement": (settle, {"handovers_pkey"}),
    "retry": (retry, {"handovers_pkey"}),
    "expired leases": (
        lambda db: OutboxMaintenance(db, handovers).doubt_expired(60.0, 200),
        {"ix_handovers_unsettled"},
    ),
    "pruning": (
        lambda db: OutboxMaintenance(db, handovers).prune(86_400.0, 1_000),
        {"ix_handovers_settled"},
    ),
    "backlog": (
        lambda db: OutboxMaintenance(db, handovers).backlog(),
        {"ix_handovers_pending", "ix_handovers_unsettled"},
    ),
    "page of jobs": (
        lambda db: JobStore(db).page("user-7", offset=0, limit=100),
        {"ix_jobs_user_newest"},
    ),
    "one job": (lambda db: JobStore(db).find((1_007, "user-7")), {"ix_jobs_id|jobs_pkey"}),
    "keep-alive": (
        lambda db: keep_alive(db, 1_000),
        {"ix_jobs_id|jobs_pkey", "handover_numbers_pkey"},
    ),
    "silence": (look_for_silence, {"ix_jobs_with_worker"}),
    "interrupted deletions": (
        lambda db: take_over_interrupted(db, age=60.0, limit=5),
        {"ix_jobs_deleted"},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_runs_often_reads_no_large_table_from_end_to_end(
    large: Database, case: str
) -> None:
    work, indexes = CASES[case]
    plans = await plans_of(large, work(large))
    assert plans.large_scans == [], plans.text
    for index in indexes:
        assert plans.uses(index), plans.text


async def pages_of_a_claim(database: Database) -> int:
    """Pages that are read for a claim of the first 16 due items, which must be there."""
    with recorded(database) as seen:
        await dispatcher.outbox_of(database).claim(16)
    statement, parameters = seen[-1]
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        (row,) = await driver.fetch(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", *parameters
        )
    found = row[0][0]["Plan"]
    assert found["Actual Rows"] == 16
    return int(found["Shared Hit Blocks"] + found["Shared Read Blocks"])


async def test_a_claims_cost_does_not_depend_on_the_rows_behind_it(large: Database) -> None:
    assert await pages_of_a_claim(large) < 400


WAITING = """
SET session_replication_role = replica;
INSERT INTO handovers (state, due_at, created_at, job_id, priority, number, payload)
SELECT 'pending',
       timezone('utc', now()) + CASE WHEN n <= 20000 THEN '60 s' ELSE '-1 s' END::interval,
       timezone('utc', now()), n, CASE WHEN n <= 20000 THEN 5 ELSE 0 END, n, repeat('x', 1000)
FROM generate_series(1, 20100) AS n;
ANALYZE
"""


async def test_what_is_not_due_is_passed_over_within_the_index(postgresql_url: str) -> None:
    connection: Any = await asyncpg.connect(postgresql_url)
    await connection.execute(WAITING)
    await connection.close()
    database = Database(settings_of(postgresql_url))
    assert await pages_of_a_claim(database) < 1_000
    await database.close()
