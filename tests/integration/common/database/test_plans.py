"""Plans of the statements that run often, with years of finished rows behind what is due."""

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
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
from common.jobs.quota import count_unfinished
from common.jobs.updates import report_of_worker
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import Outbox
from common.usage.records import read_usage, uploads_elsewhere
from devtools.database import database_settings
from devtools.postgres import Server, run_apart
from dispatcher.stalled import StalledJob, Sweep
from dispatcher.unfinished import measure_unfinished
from dispatcher.usage import UsageSweep
from gateway.job_status.service import JobStatusService
from gateway.jobs.store import JobStore
from notifier.compose import Composer
from notifier.messages import Site
from tests.support import dispatcher, notifier
from tests.support.records import submission

HISTORY = int(os.environ.get("TEST_HISTORY", "200000"))
LARGE = (
    *("jobs", "handovers", "emails", "handover_numbers", "job_events"),
    *("user_usage", "usage_changes", "digest_jobs", "notification_choices", "job_labels"),
)

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
INSERT INTO user_usage (user_id, measured_at, measured_until, active_until, rest_until, due_at)
SELECT 'user-' || n, timezone('utc', now()), timezone('utc', now()), timezone('utc', now()),
       timezone('utc', now()), CASE WHEN n % 100 = 0 THEN timezone('utc', now()) END
FROM generate_series(1, :count / 10) AS n;
INSERT INTO usage_changes (user_id, bytes, began_at, ended_at)
SELECT 'user-' || n % 1000, n, timezone('utc', now()), timezone('utc', now())
FROM generate_series(1, :count / 10) AS n;
INSERT INTO notification_choices (user_id, mail, changed_at)
SELECT 'user-' || n, 'last', timezone('utc', now()) FROM generate_series(0, :count / 10) AS n;
INSERT INTO digest_jobs (user_id, job_id, mail_id)
SELECT user_id, id, CASE WHEN id % 7 > 0 THEN id END FROM jobs WHERE id % 10 > 0;
INSERT INTO job_labels (job_id, key, value, user_id) SELECT id, 'exp', id, user_id FROM jobs;
ANALYZE
"""
"""The first line leaves out the checks of foreign keys, which would take most of the time."""


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


async def plans_of(database: Database, work: Awaitable[Any]) -> str:
    """Do the work, and explain every statement of it: with its parameters, and for any."""
    with recorded(database) as seen:
        await work
    plans: list[str] = []
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for statement, parameters in seen:
            if not re.match(r"\s*(SELECT|UPDATE|DELETE|WITH|INSERT|\()", statement):
                continue
            for mode in ("force_custom_plan", "force_generic_plan"):
                await driver.execute(f"SET plan_cache_mode = {mode}")
                lines = await driver.fetch(f"EXPLAIN {statement}", *parameters)
                plans += [f"-- {mode}", statement, *(line[0] for line in lines)]
        await driver.execute("RESET plan_cache_mode")
    return "\n".join(plans)


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
    database = Database(database_settings(url))
    yield database
    await database.close()


Work = Callable[[Database], Awaitable[Any]]


def sending(work: Callable[[Outbox[Any]], Awaitable[Any]], daemon: Any = dispatcher) -> Work:
    return lambda database: work(daemon.outbox_of(database))


def maintaining(work: Callable[[OutboxMaintenance], Awaitable[Any]]) -> Work:
    return lambda database: work(OutboxMaintenance(database, handovers))


async def settle(outbox: Outbox[Any]) -> None:
    await outbox.done(await outbox.claim(16))


async def retry(outbox: Outbox[Any]) -> None:
    await outbox.retry(await outbox.claim(16), 600.0, "HTTP 503")


async def keep_alive(database: Database) -> None:
    notifier = ChannelNotifier(database)
    reports = JobStatusService(database, notifier, touch_every=30.0)
    await reports.report(1_000, Report(Status.RUNNING, None, Source.WORKER))
    await notifier.close()


async def end_job(database: Database) -> None:
    """Of a user with one mail for all jobs."""
    report = Report(Status.FINISHED, "the end", Source.WORKER)
    assert await report_of_worker(database, ChannelNotifier(database), 3_000, report)


async def compose(database: Database) -> None:
    mails = await notifier.outbox_of(database).claim(50)
    assert await Composer(database, Site()).compose(mails)


async def look_for_silence(database: Database) -> list[StalledJob]:
    await beat(database, PEER)
    return await Sweep(database=database, notifier=ChannelNotifier(database)).find(60.0)


async def submit(database: Database) -> None:
    await JobStore(database).insert(submission("user-7"))


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return await count_unfinished(connection, "user-7")


def usage_sweep(database: Database) -> UsageSweep:
    storage: Any = None  # not asked here
    return UsageSweep(database=database, storage=storage, interval=300.0)


async def read_usage_of_one(database: Database) -> None:
    async with database.reading() as connection:
        await read_usage(connection, "user-7")
        await uploads_elsewhere(connection, "user-7", "other")


PENDING, UNSETTLED = "ix_handovers_pending", "ix_handovers_unsettled"
ONE_JOB = "ix_jobs_id|jobs_pkey"

CASES: dict[str, tuple[Work, set[str]]] = {
    "claim": (sending(lambda outbox: outbox.claim(16)), {PENDING}),
    "claim of one": (sending(lambda outbox: outbox.claim_one()), {PENDING}),
    "claim of one where all were tried": (
        sending(lambda outbox: outbox._claims.claim(outbox._claim_longest_due, 1)),
        {PENDING},
    ),
    "claim of held": (sending(lambda outbox: outbox.claim_held(1)), {UNSETTLED}),
    "claim of doubtful": (sending(lambda outbox: outbox.claim_doubtful(200)), {UNSETTLED}),
    "claim of mails": (sending(lambda mails: mails.claim(50), notifier), {"ix_emails_pending"}),
    "whether there is work": (
        sending(lambda outbox: outbox.has_work(60.0)),
        {PENDING, UNSETTLED},
    ),
    "settlement": (sending(settle), {"handovers_pkey"}),
    "retry": (sending(retry), {"handovers_pkey"}),
    "expired leases": (maintaining(lambda done: done.doubt_expired(60.0, 200)), {UNSETTLED}),
    "pruning": (maintaining(lambda done: done.prune(86_400.0, 1_000)), {"ix_handovers_settled"}),
    "backlog": (maintaining(lambda done: done.backlog()), {PENDING, UNSETTLED}),
    "page of jobs": (
        lambda database: JobStore(database).page("user-7", offset=0, limit=100),
        {"ix_jobs_user_newest"},
    ),
    "submission": (submit, {"ix_handovers_turns"}),
    "count of unfinished jobs": (count, {"ix_jobs_unfinished"}),
    "one job": (lambda database: JobStore(database).find((1_007, "user-7")), {ONE_JOB}),
    "keep-alive": (keep_alive, {ONE_JOB, "handover_numbers_pkey"}),
    "end of a job": (end_job, {"notification_choices_pkey", "ix_digest_jobs_gathered"}),
    "mails to send": (compose, {"emails_pkey", "jobs_pkey|ix_jobs_id", "job_labels_pkey"}),
    "silence": (look_for_silence, {"ix_jobs_with_worker"}),
    "users whose workers write": (
        lambda database: usage_sweep(database).note_workers(),
        {"ix_jobs_with_worker"},
    ),
    "usage": (read_usage_of_one, {"user_usage_pkey", "ix_usage_changes_user"}),
    "claim of a tree to measure": (
        lambda database: usage_sweep(database).claim(),
        {"ix_user_usage_due", "ix_usage_changes_user"},
    ),
    "unfinished jobs": (measure_unfinished, {"ix_jobs_unfinished"}),
    "interrupted deletions": (
        lambda database: take_over_interrupted(database, age=60.0, limit=5),
        {"ix_jobs_deleted"},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_runs_often_reads_no_large_table_from_end_to_end(
    large: Database, case: str
) -> None:
    work, indexes = CASES[case]
    plans = await plans_of(large, work(large))
    assert not re.search(rf"Seq Scan on (?:{'|'.join(LARGE)})\b", plans), plans
    for index in indexes:
        assert re.search(rf"\b(?:{index})\b", plans), plans


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
    database = Database(database_settings(postgresql_url))
    assert await pages_of_a_claim(database) < 1_000
    await database.close()
