"""Plans of the statements that run often, with years of finished rows behind what is due."""

import json
import os
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import handovers
from common.digests.records import find_digests, find_oldest
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
from dispatcher.maintenance import prune_keys
from dispatcher.stalled import StalledJob, Sweep
from dispatcher.unfinished import measure_unfinished
from dispatcher.usage import UsageSweep
from gateway.job_status.service import JobStatusService
from gateway.jobs.finding.listing import prepared
from gateway.jobs.finding.schemas import FindSchema, search_of
from gateway.jobs.finding.search import SORTS
from gateway.jobs.finding.statements import Plan
from gateway.jobs.idempotency.claims import Claim, IdempotencyKeys, Stored, keep_answers
from gateway.jobs.insertion import JobInsertion
from gateway.jobs.store import JobStore
from notifier.compose import Composer
from notifier.messages import Site
from tests.support import dispatcher, notifier
from tests.support.records import submission

pytestmark = pytest.mark.timeout(900)  # the first test waits for the history
HISTORY = int(os.environ.get("TEST_HISTORY", "200000"))
LARGE = (
    *("jobs", "handovers", "emails", "handover_numbers", "job_events"),
    *("user_usage", "usage_changes", "idempotency_keys"),
    *("digest_jobs", "notification_choices", "job_labels", "file_digests"),
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
UPDATE jobs SET user_id = 'ada', application = json_build_object('application', 'decode',
    'version', CASE WHEN id < :count / 100 THEN 'v0' ELSE 'v1' END, 'entrypoint', 'train'),
    environment = CASE WHEN id < 2000 THEN 'local'::environmenttypes ELSE 'cloud' END,
    batch_id = CASE WHEN id < 500 THEN 4 END
WHERE id % 10 < 5;
INSERT INTO job_labels (job_id, user_id, key, value, date_created)
SELECT id, user_id, 'all', 'x', date_created FROM jobs WHERE user_id = 'ada'
UNION ALL
SELECT id, user_id, 'rare', id::text, date_created FROM jobs WHERE user_id = 'ada' AND id < 200;
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
INSERT INTO file_digests (user_id, path, etag, sha256, checked_at)
SELECT 'user-' || n % 10, 'data/' || n, n, n, timezone('utc', now()) - make_interval(mins => n)
FROM generate_series(1, :count) AS n;
INSERT INTO idempotency_keys (user_id, key, fingerprint, created_at, status, body)
SELECT user_id, job_name, 'x', date_created, 201, '{}' FROM jobs;
INSERT INTO notification_choices (user_id, mail, changed_at)
SELECT 'user-' || n, 'last', timezone('utc', now()) FROM generate_series(0, :count / 10) AS n;
INSERT INTO digest_jobs (user_id, job_id, mail_id)
SELECT user_id, id, CASE WHEN id % 7 > 0 THEN id END FROM jobs WHERE id % 10 > 0;
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
        for table in ("jobs", "job_labels"):  # as autovacuum does
            await connection.execute(f"VACUUM ANALYZE {table}")
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
    await JobInsertion(database).one(submission("user-7"))


async def claim_key(database: Database) -> None:
    keys = IdempotencyKeys(database, retention=86_400.0)
    for status in (201, None):
        found = await keys.claim("user-7", f"key-{status}", "x", status=201, headers={})
        assert isinstance(found, Claim)
        async with database.transaction() as tx:
            await keep_answers(tx, [(found, b"{}")])
    assert isinstance(await keys.claim("user-7", "key-201", "x", status=201, headers={}), Stored)


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


async def find_digests_of_a_page(database: Database) -> None:
    versions = {f"data/{number}": str(number) for number in range(7, 10_007, 10)}
    async with database.reading() as connection:
        assert len(await find_digests(connection, "user-7", versions)) == len(versions)


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
    "claim of an idempotency key": (claim_key, {"idempotency_keys_pkey"}),
    "pruning of idempotency keys": (
        lambda database: prune_keys(database, 86_400.0, 1_000),
        {"ix_idempotency_keys_age"},
    ),
    "names of jobs": (
        lambda database: JobStore(database).names_taken("user-7", ["job-7", "job-8"]),
        {"_user_job_name_unique"},
    ),
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
    "digests of a page": (find_digests_of_a_page, {"file_digests_pkey"}),
    "digests to look at": (
        lambda database: find_oldest(database, 86_400.0, 500),
        {"ix_file_digests_checked"},
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
    assert await pages_of_a_claim(large) < 600


WAITING = """
SET session_replication_role = replica;
INSERT INTO handovers (state, due_at, created_at, job_id, priority, number, payload)
SELECT 'pending',
       timezone('utc', now()) + CASE WHEN n <= 20000 THEN '60 s' ELSE '-1 s' END::interval,
       timezone('utc', now()), n, CASE WHEN n <= 20000 THEN 5 ELSE 0 END, n, repeat('x', 1000)
FROM generate_series(1, 20100) AS n;
ANALYZE
"""


STANDSTILL = """
SET session_replication_role = replica;
INSERT INTO handovers
    (state, due_at, created_at, job_id, priority, number, payload, user_id, turn)
SELECT 'pending',
       timezone('utc', now()) + CASE WHEN n = 1 THEN '60 s' ELSE '-1 s' END::interval,
       timezone('utc', now()), n, 0, n, repeat('x', 1000),
       CASE WHEN n > 20000 THEN 'user-' || n ELSE 'ada' END, CASE WHEN n > 20000 THEN 100 ELSE n END
FROM generate_series(1, 20040) AS n;
ANALYZE
"""


@pytest.mark.parametrize("seed", [WAITING, STANDSTILL], ids=["not due", "behind one not due"])
async def test_what_has_to_wait_is_passed_over_at_little_cost(
    postgresql_url: str, seed: str
) -> None:
    connection: Any = await asyncpg.connect(postgresql_url)
    await connection.execute(seed)
    await connection.close()
    database = Database(database_settings(postgresql_url))
    assert await pages_of_a_claim(database) < 2_000
    await database.close()


# -- finding: one user has half of all jobs --------------------------------------------------------

PAGE = 100
LONG_AGO, MANY_BLOCKS = "2020-01-01", 2_500

SEARCHES: dict[str, dict[str, Any]] = {
    **{f"by {sort}": {"sort": sort} for key in SORTS for sort in (key, f"-{key}")},
    "status of most": {"status": ["finished"]},
    "status of few": {"status": ["running"]},
    "status of none": {"status": ["pulled"]},
    "several statuses": {"status": ["error", "running", "queued"]},
    "application": {"application": "decode"},
    "version of the oldest": {"version": "v0"},
    "entrypoint of none": {"entrypoint": "fit"},
    "environment of the oldest": {"environment": "local"},
    "no environment": {"environment": "null"},
    "status, version and environment": {
        "status": ["error"],
        "version": "v0",
        "environment": "local",
    },
    "oldest first, of a status": {"status": ["error"], "sort": "date_created"},
    "name": {"name": "job-1001"},
    "beginning of a name": {"name": "job-100*"},
    "beginning of all names": {"name": "job-*"},
    "end of few names": {"name": "*0001"},
    "end of no name": {"name": "*-none"},
    "middle of few names": {"name": "job-*00*01", "sort": "job_name"},
    "label of all": {"label": ["all:x"]},
    "label of the oldest": {"label": ["rare"]},
    "label with a value": {"label": ["rare:3"]},
    "labels": {"label": ["all:x", "rare"]},
    "three labels": {"label": ["all:x", "rare", "all"]},
    "label and status": {"label": ["all:x"], "status": ["finished"]},
    "batch": {"batch_id": 4},
    "created before": {"created_before": "RECENT"},
    "created before, of a status": {"created_before": "RECENT", "status": ["error"]},
    "created long ago": {"created_before": LONG_AGO},
    "created since": {"created_after": "RECENT"},
    "finished since": {"finished_after": "RECENT"},
    "finished since long ago": {"finished_after": LONG_AGO},
    "finished before": {"finished_before": "RECENT"},
    "finished before long ago": {"finished_before": LONG_AGO},
    "finished last, of a status": {"status": ["finished"], "sort": "-date_finished"},
}


def find(query: dict[str, Any]) -> Work:
    """The first page, one from the middle, and how many there are."""
    recent = (datetime.now(UTC) - timedelta(minutes=HISTORY // 2)).isoformat()
    values = {key: recent if value == "RECENT" else value for key, value in query.items()}
    search = search_of(FindSchema().load(values))

    async def work(database: Database) -> None:
        plan = Plan(search, "ada", database.is_sqlite)
        async with prepared(database, JobStore(database), plan) as listing:
            first = await listing.first(PAGE + 1)
            if first:
                await listing.after(search.place(first[-1]), PAGE)

    return work


@pytest.mark.parametrize("case", SEARCHES)
async def test_a_page_reads_little_however_many_jobs_the_user_has(
    large: Database, case: str
) -> None:
    """Statements without filters may meet the plan that PostgreSQL keeps; the others never do."""
    with recorded(large) as seen:
        await find(SEARCHES[case])(large)
    kept = SEARCHES[case].keys() <= {"sort"}
    async with large.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        for statement, parameters in seen:
            if not statement.startswith(("SELECT", "WITH")):
                assert not kept
                continue
            for mode in ("custom", *(["generic"] if kept else [])):
                await driver.execute(f"SET plan_cache_mode = force_{mode}_plan")
                await driver.execute(f"PREPARE page AS {statement}")
                values = ", ".join([quoted(value) for value in parameters])
                explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page"
                ((found,),) = await driver.fetch(f"{explain}({values})" if values else explain)
                await driver.execute("DEALLOCATE page")
                plan = found[0]["Plan"]
                blocks = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
                assert blocks < MANY_BLOCKS, (statement, json.dumps(plan, indent=1))
        await driver.execute("RESET plan_cache_mode")


async def test_a_page_with_details_takes_one_transaction_and_one_statement_per_question(
    large: Database,
) -> None:
    search = search_of(FindSchema().load({"status": ["running"]}))
    begun: list[Any] = []
    note = begun.append
    event.listen(large.engine.sync_engine, "begin", note)
    try:
        with recorded(large) as seen:
            plan = Plan(search, "ada", is_sqlite=False)
            async with prepared(large, JobStore(large), plan, details=True) as listing:
                found = await listing.shown(await listing.first(PAGE))
                assert found[0]["labels"] == {"all": "x"}
    finally:
        event.remove(large.engine.sync_engine, "begin", note)
    assert len(begun) == 1
    questions = ("SET LOCAL", "WITH RECURSIVE", "SELECT job.", "SELECT jobs.id")
    assert [any(map(statement.startswith, questions)) for statement, _ in seen] == [True] * 4


def quoted(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


SEED_SQLITE = """
INSERT INTO jobs (id, user_id, job_name, date_created, date_finished, status, paths_out, priority,
                  application, attributes, environment, batch_id)
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
SELECT n, CASE WHEN n % 10 < 5 THEN 'ada' ELSE 'user-' || n % 500 END, 'job-' || n, at, at,
       CASE WHEN n % 1000 = 0 THEN 'running' WHEN n % 10 = 0 THEN 'error' ELSE 'finished' END,
       '{}', 0, json_object('application', 'decode', 'version', iif(n < 2000, 'v0', 'v1'),
                            'entrypoint', 'train'),
       '{}', iif(n < 2000, 'local', 'cloud'), iif(n < 500, 4, NULL)
FROM (SELECT n, strftime('%Y-%m-%d %H:%M:%f000', 'now', (n - :count) || ' minutes') AS at
      FROM numbers);
INSERT INTO job_labels (job_id, user_id, key, value, date_created)
SELECT id, user_id, 'all', 'x', date_created FROM jobs WHERE user_id = 'ada'
UNION ALL
SELECT id, user_id, 'rare', id, date_created FROM jobs WHERE user_id = 'ada' AND id < 200
"""
STEPS, MOST_STEPS = 1_000, 120
STEPS_OF_NAMES = 6 * HISTORY // 2 // STEPS
"""To look at each name of the user in the index alone."""


@pytest.fixture(scope="module")
def large_file(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.db"
    shutil.copy(sqlite_template, path)
    with sqlite3.connect(path) as connection:
        connection.executescript(SEED_SQLITE.replace(":count", str(HISTORY)))
    connection.close()
    return path


@pytest.mark.parametrize("case", SEARCHES)
async def test_a_page_takes_few_steps_of_sqlite(large_file: Path, case: str) -> None:
    database = Database(database_settings(f"sqlite:///{large_file}"))
    with recorded(database) as seen:
        await find(SEARCHES[case])(database)
    await database.close()
    connection = sqlite3.connect(large_file)
    for statement, parameters in seen:
        steps = Counter[str]()
        connection.set_progress_handler(lambda: steps.update("n"), STEPS)  # noqa: B023
        list(connection.execute(statement, parameters))
        connection.set_progress_handler(None, 0)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        looks_at_names = re.search(r"COVERING INDEX \S+ \(user_id=. AND job_name", plan[0])
        most = STEPS_OF_NAMES if looks_at_names else MOST_STEPS
        assert steps["n"] < most, (statement, plan)
    connection.close()
