import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, inspect, text

from common.database.engine import Database
from common.database.schema import SchemaOutdated, current, migrate, revisions
from common.database.tables import emails, handovers, jobs, metadata
from common.jobs.deletion import finish_deletion, mark_deleted, take_over_interrupted
from common.runtime.startup import make_ready
from common.storage.local.storage import LocalStorage
from devtools.database import database_settings
from devtools.postgres import Server, run_apart
from devtools.services import REPOSITORY
from tests.support.records import add_job, rows

OLD_POSTGRESQL = """
CREATE TYPE environmenttypes AS ENUM ('cloud', 'local', 'any');
CREATE TYPE jobstates AS ENUM ('queued', 'pulled', 'running', 'finished', 'error');
CREATE TABLE jobs (
    id SERIAL PRIMARY KEY, user_id VARCHAR NOT NULL, user_email VARCHAR, job_name VARCHAR,
    date_created TIMESTAMP WITHOUT TIME ZONE, date_started TIMESTAMP WITHOUT TIME ZONE,
    date_finished TIMESTAMP WITHOUT TIME ZONE, status VARCHAR NOT NULL, paths_out JSON NOT NULL,
    runtime_details TEXT, environment environmenttypes, priority INTEGER NOT NULL,
    application JSON NOT NULL, attributes JSON NOT NULL, hardware JSON,
    CONSTRAINT _user_job_name_unique UNIQUE (user_id, job_name)
);
CREATE INDEX ix_jobs_id ON jobs (id);
"""
OLD_SQLITE = """
CREATE TABLE jobs (
    id INTEGER NOT NULL, user_id VARCHAR NOT NULL, user_email VARCHAR, job_name VARCHAR,
    date_created DATETIME, date_started DATETIME, date_finished DATETIME, status VARCHAR NOT NULL,
    paths_out JSON NOT NULL, runtime_details TEXT, environment VARCHAR(5),
    priority INTEGER NOT NULL, application JSON NOT NULL, attributes JSON NOT NULL, hardware JSON,
    PRIMARY KEY (id), CONSTRAINT _user_job_name_unique UNIQUE (user_id, job_name)
);
CREATE INDEX ix_jobs_id ON jobs (id);
"""
OLD_ROWS = """
INSERT INTO jobs (id, user_id, user_email, job_name, date_created, date_started, date_finished,
                  status, paths_out, runtime_details, environment, priority, application,
                  attributes, hardware) VALUES
(1, 'ada', 'ada@x.org', 'one', '2025-01-01 12:00:00.123456', NULL, NULL, 'queued',
 '{"output": "output/one"}', NULL, 'cloud', 0, '{"application": "decode"}', '{}', NULL),
(2, 'ada', NULL, NULL, '2025-01-02 12:00:00.000000', '2025-01-02 13:00:00.5', NULL, 'running',
 '{}', 'epoch 1', 'any', 5, '{}', '{}', 'null'),
(3, 'ada', NULL, NULL, NULL, NULL, NULL, 'error', '{}', '', NULL, 1, '{}', '{}',
 '{"memory": 8000}'),
(7, 'eve', 'eve@x.org', 'seven', '2025-01-03 12:00:00', NULL, '2025-01-04 12:00:00', 'finished',
 '{}', NULL, 'local', 0, '{}', '{}', NULL);
"""


@pytest.fixture
def bare_url(postgres: Server) -> Iterator[str]:
    """URL of a PostgreSQL database without any table."""
    name = postgres.create_database()
    yield postgres.url_of(name)
    postgres.drop_database(name)


@pytest.fixture
def old(empty: Database, empty_url: str) -> Database:
    """A database of the existing deployment."""
    make_old(empty_url)  # on PostgreSQL its sequence stands at 1: the ids came from elsewhere
    return empty


def run_script(url: str, script: str) -> None:
    """Run SQL without any of our code."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(script)
        connection.close()
        return

    async def run() -> None:
        connection: Any = await asyncpg.connect(url)
        await connection.execute(script)
        await connection.close()

    run_apart(run())


def make_old(url: str, extra: str = "") -> None:
    table = OLD_SQLITE if url.startswith("sqlite") else OLD_POSTGRESQL
    run_script(url, table + OLD_ROWS + extra)


async def mark(database: Database, job_id: int) -> None:
    """A deletion begins."""
    async with database.transaction() as tx:
        job = (await tx.execute(jobs.select().where(jobs.c.id == job_id))).one()
        assert await mark_deleted(tx, job.user_id, job_id)


async def inspected(database: Database, look: Callable[[Inspector], Any]) -> Any:
    async with database.reading() as connection:
        return await connection.run_sync(lambda sync: look(inspect(sync)))


async def test_the_stairway_goes_up_down_and_up_again(empty: Database) -> None:
    known = revisions()
    for revision in known:
        await migrate(empty, revision)
        assert await current(empty) == revision
    for revision in (*known[-2::-1], "base"):
        await migrate(empty, revision, down=True)
    left = await inspected(empty, lambda found: found.get_table_names())
    assert set(left) == {"jobs", "alembic_version"}
    await migrate(empty)
    assert await current(empty) == revisions()[-1]
    await add_job(empty)


INDEXES_OF_EXPRESSIONS = {"ix_jobs_facet", "ix_jobs_user_name"}
"""Alembic compares their spelling, which the database changes; `test_plans` sees them in use."""


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
async def test_the_migrated_schema_is_the_one_that_the_code_knows(empty: Database) -> None:
    await migrate(empty)
    await migrate(empty)  # which changes nothing

    def is_compared(_: object, name: str | None, *__: object) -> bool:
        return name not in INDEXES_OF_EXPRESSIONS

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"include_object": is_compared})
        return list(compare_metadata(context, metadata))

    async with empty.reading() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
async def test_an_existing_database_is_adopted_row_by_row(old: Database) -> None:
    await migrate(old)
    one, two, three, seven = await rows(old, jobs)
    assert (one["job_name"], one["environment"], one["hardware"]) == ("one", "cloud", None)
    assert one["date_created"] == datetime(2025, 1, 1, 12, 0, 0, 123456)  # noqa: DTZ001 - UTC
    assert one["paths_out"] == {"output": "output/one"}
    assert (two["job_name"], two["environment"], two["hardware"]) == (None, "any", None)
    assert two["date_started"] == datetime(2025, 1, 2, 13, 0, 0, 500000)  # noqa: DTZ001 - UTC
    assert (three["environment"], three["hardware"]) == (None, {"memory": 8000})
    assert (seven["id"], seven["status"]) == (7, "finished")
    assert {row["last_seen_at"] for row in (one, two, three, seven)} == {None}
    assert await rows(old, handovers) == []  # no adopted job is handed over again
    unique = await inspected(old, lambda found: found.get_unique_constraints("jobs"))
    assert "_user_job_name_unique" in {item["name"] for item in unique}
    indexes = await inspected(old, lambda found: found.get_indexes("jobs"))
    assert "ix_jobs_id" in {item["name"] for item in indexes}


async def test_ids_continue_above_the_highest_adopted_one_and_are_not_used_again(
    old: Database,
) -> None:
    await migrate(old)
    newest = await add_job(old)
    assert newest > 7
    async with old.transaction() as tx:
        await tx.execute(jobs.delete().where(jobs.c.id == newest))
    assert await add_job(old) > newest


async def test_an_advanced_sequence_is_not_set_back(bare_url: str) -> None:
    make_old(bare_url, "DELETE FROM jobs WHERE id = 7; SELECT setval('jobs_id_seq', 7);")
    database = Database(database_settings(bare_url))
    await migrate(database)
    assert await add_job(database) > 7
    await database.close()


async def test_a_downgrade_leaves_the_existing_deployments_table(old: Database) -> None:
    await migrate(old)
    await migrate(old, "base", down=True)
    assert len(await inspected(old, lambda found: found.get_columns("jobs"))) == 15
    async with old.reading() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM jobs"))).scalar_one() == 4


async def test_no_downgrade_brings_back_a_job_whose_deletion_is_under_way(
    empty: Database, empty_url: str, tmp_path: Path
) -> None:
    await migrate(empty)
    kept, marked = await add_job(empty), await add_job(empty)
    await mark(empty, marked)
    status, _, complained = await run_migrate(empty_url, tmp_path, "downgrade", "base")
    assert (status, complained.count("\n")) == (1, 1)
    assert f"the deletion of jobs is under way ({marked}): a dispatcher finishes it" in complained
    assert await current(empty) == revisions()[-1]

    async with LocalStorage(str(tmp_path / "root")) as storage:
        (taken,) = await take_over_interrupted(empty, age=-1.0, limit=10)
        await finish_deletion(empty, storage, taken)
    status, _, complained = await run_migrate(empty_url, tmp_path, "downgrade", "base")
    assert (status, complained) == (0, "")
    async with empty.reading() as connection:
        assert [*await connection.scalars(text("SELECT id FROM jobs"))] == [kept]


async def test_mails_that_were_to_be_sent_alone_still_are_and_the_version_before_runs_on(
    empty: Database, empty_url: str
) -> None:
    await migrate(empty, "0005")
    job_id = await add_job(empty)

    def add_mail(kind: str, last_error: str) -> None:
        run_script(
            empty_url,
            "INSERT INTO emails (state, due_at, created_at, job_id, kind, recipient, custom_id,"
            " last_error) VALUES ('pending', '2026-01-01', '2026-01-01',"
            f" {job_id}, '{kind}', 'ada@x.org', '{kind}', '{last_error}')",
        )

    add_mail("finished", "the batch was refused as a whole: to be sent alone")
    add_mail("error", "HTTP 503")
    await migrate(empty, "0006")
    add_mail("any", "HTTP 429")  # as the version before writes it
    await migrate(empty)
    assert [row["alone"] for row in await rows(empty, emails)] == [True, False, False]


async def run_migrate(url: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """`python -m common.migrate`: its exit status and its two outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "common.migrate", *arguments,
        env={"DATABASE_URL": url, "PYTHONPATH": str(REPOSITORY)}, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode(), complained.decode()


@pytest.mark.slow
async def test_processes_that_migrate_at_once_wait_for_each_other(
    old: Database, empty_url: str, tmp_path: Path
) -> None:
    ended = await asyncio.gather(*(run_migrate(empty_url, tmp_path) for _ in range(4)))
    assert [status for status, _, __ in ended] == [0] * 4
    assert await current(old) == revisions()[-1]
    assert len(await rows(old, jobs)) == 4


async def test_a_schema_of_a_newer_version_is_left_as_it_is(
    empty: Database, empty_url: str, tmp_path: Path
) -> None:
    await migrate(empty)
    run_script(empty_url, "UPDATE alembic_version SET version_num = '9999'")
    status, said, _ = await run_migrate(empty_url, tmp_path)
    assert (status, "9999, of a newer version: left as it is" in said) == (0, True)
    status, _, complained = await run_migrate(empty_url, tmp_path, "downgrade", "base")
    assert (status, complained.count("\n")) == (1, 1)
    assert "go back with the version that made it" in complained
    assert await current(empty) == "9999"


@pytest.mark.parametrize("action", ["upgrade", "downgrade"])
async def test_a_revision_that_does_not_exist_is_reported_in_one_sentence(
    tmp_path: Path, action: str
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    status, _, complained = await run_migrate(url, tmp_path, action, "9999")
    assert (status, complained.count("\n")) == (1, 1)
    assert f"there is no revision 9999, only {', '.join(revisions())}" in complained


async def test_a_service_waits_for_the_schema_and_says_what_is_missing(bare_url: str) -> None:
    database = Database(replace(database_settings(bare_url), startup_timeout=0.5))
    with pytest.raises(SchemaOutdated, match=r"run python -m common\.migrate"):
        await make_ready(database)
    await migrate(database)
    await make_ready(database)
    await database.close()


def test_the_revisions_known_by_name_are_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", "common/database/migrations")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == revisions()[-1]
    assert [script.revision for script in scripts.walk_revisions()] == revisions()[::-1]
