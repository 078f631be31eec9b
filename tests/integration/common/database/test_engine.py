import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Integer, literal, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseRefused, DatabaseUnavailable, translated
from common.database.notify import listen
from common.database.tables import jobs
from common.runtime.startup import accepted, wait_until_up
from deploy.sandbox.ports import free_port
from devtools.database import database_settings
from devtools.postgres import OwnServer, Server
from tests.support.records import add_job, change, job_row

OpenDatabase = Callable[..., Database]


@pytest.fixture
async def opened() -> AsyncIterator[OpenDatabase]:
    """Opens databases with changed settings, and closes them at the end."""
    found: list[Database] = []

    def open_database(url: str, *, pool_size: int = 10, **changes: Any) -> Database:
        found.append(Database(replace(database_settings(url, pool_size=pool_size), **changes)))
        return found[-1]

    yield open_database
    for database in found:
        await database.close()


async def test_a_transaction_is_committed_whole_or_not_at_all(database: Database) -> None:
    job_id = await add_job(database, priority=1)
    with contextlib.suppress(ZeroDivisionError):
        async with database.transaction() as tx:
            await tx.execute(jobs.update().values(priority=2))
            raise ZeroDivisionError
    assert (await job_row(database, job_id))["priority"] == 1


async def test_what_is_wrong_with_a_statement_is_not_an_outage(database: Database) -> None:
    await add_job(database, job_name="same")
    with pytest.raises(IntegrityError):
        await add_job(database, job_name="same")


@pytest.mark.parametrize(
    "broken",
    [
        asyncpg.InternalClientError(
            "cannot switch to state 12; another operation (2) is in progress"
        ),
        asyncpg.ProtocolError("unexpected message"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_connection_that_breaks_amid_an_operation_is_lost_and_not_used_again(
    postgresql_url: str, opened: OpenDatabase, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    database, backend = opened(postgresql_url, pool_size=1), text("SELECT pg_backend_pid()")

    async def fail(*_: Any, **__: Any) -> None:
        raise broken

    async def backend_id() -> int:
        async with database.reading() as connection:
            return int((await connection.execute(backend)).scalar_one())

    before = await backend_id()
    with monkeypatch.context() as patch:
        patch.setattr(asyncpg.prepared_stmt.PreparedStatement, "fetch", fail)
        with pytest.raises(DatabaseUnavailable, match=str(broken.args[0]).partition(";")[0]):
            await backend_id()
    assert await backend_id() != before


async def test_an_argument_of_a_wrong_kind_costs_no_connection(
    postgresql_url: str, opened: OpenDatabase
) -> None:
    database = opened(postgresql_url, pool_size=1)
    ids = []
    for value in (1, "one", 1):
        with contextlib.suppress(DatabaseUnavailable, DBAPIError):
            async with database.reading() as connection:
                ask = text("SELECT pg_backend_pid(), CAST(:value AS INTEGER)")
                ids.append((await connection.execute(ask, {"value": value})).one()[0])
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_no_update_is_lost_among_concurrent_read_modify_writes(database: Database) -> None:
    job_id = await add_job(database)

    async def add_one() -> None:
        async with database.transaction() as tx:
            found = await tx.execute(
                select(jobs.c.priority).where(jobs.c.id == job_id).with_for_update()
            )
            await tx.execute(jobs.update().values(priority=found.scalar_one() + 1))

    await asyncio.gather(*(add_one() for _ in range(50)))
    assert (await job_row(database, job_id))["priority"] == 50


@pytest.mark.parametrize("seconds", [0.25, 7.5, -7.5, 86_400.0, jobs.c.priority], ids=str)
async def test_the_clock_is_shifted_by_fractions_of_a_second_or_a_column(
    database: Database, seconds: Any
) -> None:
    job_id = await add_job(database, priority=90)
    await change(database, jobs, job_id, last_seen_at=utc_now(seconds), date_started=utc_now())
    job = await job_row(database, job_id)
    shift = 90.0 if seconds is jobs.c.priority else seconds
    assert (job["last_seen_at"] - job["date_started"]).total_seconds() == pytest.approx(
        shift, abs=0.2
    )


async def test_a_cancelled_transaction_holds_up_no_other(database: Database) -> None:
    async def write_for_ever(begun: asyncio.Event) -> None:
        async with database.transaction() as tx:
            more = jobs.update().values(priority=jobs.c.priority + 1).returning(jobs.c.priority)
            while True:
                (await tx.execute(more)).all()
                begun.set()

    job_id = await add_job(database)
    cancelled = []
    for turn in range(20):
        begun = asyncio.Event()
        task = asyncio.create_task(write_for_ever(begun))
        await begun.wait()
        await asyncio.sleep(turn * 0.0003)  # somewhere in a statement, its rows read or not
        task.cancel()
        cancelled.append(task)  # its traceback stays, as it does until the collector comes by
        await asyncio.wait({task})
        async with asyncio.timeout(30.0):
            await change(database, jobs, job_id, user_id="somebody")
    assert all(task.cancelled() for task in cancelled)
    assert (await job_row(database, job_id))["priority"] == 0


async def test_sqlites_writers_take_turns_and_leave_the_readers_a_connection(
    sqlite_url: str, opened: OpenDatabase
) -> None:
    database = opened(sqlite_url, pool_size=2, pool_timeout=0.1)
    begun, go_on = asyncio.Event(), asyncio.Event()
    wrote: list[int] = []

    async def write(number: int) -> None:
        async with database.transaction():
            begun.set()
            await go_on.wait()
            wrote.append(number)

    writers = [asyncio.create_task(write(number)) for number in range(20)]
    await begun.wait()
    await database.ping()
    go_on.set()
    await asyncio.gather(*writers)
    assert wrote == list(range(20))


async def test_a_share_that_is_used_up_leaves_the_other_connections_to_others(
    database_url: str, opened: OpenDatabase
) -> None:
    database = opened(database_url, pool_size=3, pool_timeout=0.1)
    users = database.share(2)
    async with users.reading(), users.transaction():
        with pytest.raises(DatabaseUnavailable):
            async with users.reading():
                pass
        await database.ping()
    await users.ping()


async def test_a_server_that_is_not_there_is_an_outage(opened: OpenDatabase) -> None:
    port = free_port()
    database = opened(f"postgresql://postgres@127.0.0.1:{port}/nothing")
    with pytest.raises(DatabaseUnavailable, match=f"^127.0.0.1:{port}: connection refused$"):
        await database.ping()
    with pytest.raises(DatabaseUnavailable):
        await wait_until_up(database, 0.3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connect call failed (…)"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 111] Connect, [Errno 111] C"), "connection refused"),
        (OSError("[Errno 111] C, [Errno 113] C"), "connection refused or no route to host"),
        (socket.gaierror(-2, "Name or service not known"), "name or service not known"),
        (TimeoutError(), "no answer in time"),
        (asyncpg.TooManyConnectionsError("sorry, too many clients already"), "sorry, too many"),
        (PoolTimeout("QueuePool limit of size 1"), "no connection was free in time"),
    ],
    ids=str,
)
def test_the_reason_for_an_outage_is_what_the_driver_said(error: Exception, said: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=f"^db:5432: {said}"), translated("db:5432"):
        raise error


async def test_a_sqlite_file_that_cannot_be_opened_ends_the_wait(opened: OpenDatabase) -> None:
    database = opened("sqlite:////proc/none.db")
    async with asyncio.timeout(30.0):
        with pytest.raises(DatabaseRefused, match=r"^/proc/none\.db: unable to open"):
            await wait_until_up(database, 60.0)


async def test_the_servers_settings_of_the_url_count_on_every_connection(
    postgresql_url: str, opened: OpenDatabase
) -> None:
    sent = {"application_name": "cloud", "options": "-c statement_timeout=4321"}
    database = opened(postgresql_url, server_settings=sent)
    woken = asyncio.Event()
    listening = asyncio.create_task(listen(database.settings, "channel", lambda _: woken.set()))
    await woken.wait()
    async with database.reading() as connection:
        timeout = (await connection.execute(text("SHOW statement_timeout"))).scalar_one()
        named = text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'cloud' AND datname = current_database()"
        )
        assert (timeout, (await connection.execute(named)).scalar_one()) == ("4321ms", 2)
    listening.cancel()
    await asyncio.wait([listening])


async def test_a_secret_that_was_percent_encoded_by_hand_is_accepted(
    server: OwnServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.execute("CREATE ROLE app LOGIN PASSWORD 'p@ss%41'")
    server.execute(
        "DO $$ BEGIN EXECUTE format('COPY (SELECT %L) TO %L',"
        " 'host all app all scram-sha-256', current_setting('hba_file')); END $$"
    )
    server.stop()
    server.start()

    async def try_secret(secret: str) -> str | None:
        url = make_url(server.url).set(drivername="postgresql+asyncpg")
        settings = replace(
            database_settings(server.url), url=url.set(username="app", password=secret)
        )
        return (await accepted(settings)).url.password

    assert await try_secret("p@ss%41") == "p@ss%41"
    assert "secret_encoded" not in capsys.readouterr().out
    assert await try_secret("p%40ss%2541") == "p@ss%41"
    assert "settings.secret_encoded" in capsys.readouterr().out


async def test_a_server_that_refuses_us_is_an_outage_that_says_why_and_ends_the_wait(
    postgres: Server, opened: OpenDatabase
) -> None:
    database = opened(postgres.url_of("nothing"))
    with pytest.raises(DatabaseUnavailable, match='database "nothing" does not exist'):
        await database.ping()
    async with asyncio.timeout(30.0):
        with pytest.raises(DatabaseRefused):
            await wait_until_up(database, 60.0)


async def test_of_two_transactions_in_each_others_way_one_may_try_again(
    postgresql_url: str, opened: OpenDatabase
) -> None:
    database = opened(postgresql_url)
    ids = [await add_job(database) for _ in range(2)]
    both_begun = asyncio.Barrier(2)

    async def change_both(first: int, second: int) -> None:
        async with database.transaction() as tx:
            await tx.execute(jobs.update().where(jobs.c.id == first).values(priority=1))
            await both_begun.wait()
            await tx.execute(jobs.update().where(jobs.c.id == second).values(priority=1))

    outcomes = await asyncio.gather(
        change_both(*ids), change_both(*reversed(ids)), return_exceptions=True
    )
    assert sorted(type(outcome) for outcome in outcomes if outcome) == [DatabaseUnavailable]


async def test_terminated_connections_are_an_outage_of_one_call(
    postgresql_url: str, postgres: Server, opened: OpenDatabase
) -> None:
    database = opened(postgresql_url, pool_size=1)
    await database.ping()
    name = database.settings.url.database
    postgres.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.ping()


async def test_without_a_statement_cache_everything_works_as_well(
    postgresql_url: str, opened: OpenDatabase
) -> None:
    database = opened(postgresql_url, statement_cache=False)
    job_id = await add_job(database)
    for _ in range(10):
        async with database.transaction() as tx:
            found = await tx.execute(select(jobs.c.id, literal(1, Integer)))
            assert found.one().id == job_id
