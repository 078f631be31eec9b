"""What a process waits for before it starts: the database, then the schema that it needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import DBAPIError

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.errors import DatabaseRefused, DatabaseUnavailable, first_cause
from common.database.pool import export_pool
from common.database.schema import SchemaOutdated, current, migrate, revisions
from common.runtime.retry import retry
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

log = get_logger()


async def wait_until_up(database: Database, seconds: float) -> None:
    """Wait for the database to answer.

    Raises `DatabaseUnavailable` after `seconds`, `DatabaseRefused` at once.
    """

    async def ping() -> None:
        try:
            await database.ping()
        except (DBAPIError, TypeError) as error:  # how drivers report unknown parameters
            raise DatabaseRefused(first_cause(error)) from error

    await retry(
        ping,
        on=DatabaseUnavailable,
        unless=DatabaseRefused,
        first=0.5,
        cap=1.0,
        within=seconds,
        on_retry=lambda error: warn_of_database("database.awaited", reason=str(error)),
    )


async def make_ready(database: Database) -> None:
    """Wait for the database, then for the schema that this version needs.

    SQLite is migrated here; PostgreSQL by `python -m common.migrate`. A schema of a newer version
    is accepted: migrations keep the version before them running. Raises `DatabaseUnavailable` or
    `SchemaOutdated` when the start-up time-out has passed.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + database.settings.startup_timeout
    known = revisions()
    needed = known[-1]

    async def check_schema() -> None:
        found = await current(database)
        if found == needed or (found is not None and found not in known):
            return
        if database.is_sqlite:
            await migrate(database)
            return
        raise SchemaOutdated(
            f"the database is at revision {found or 'none'}, {needed} is needed:"
            " run python -m common.migrate"
        )

    await wait_until_up(database, database.settings.startup_timeout)
    await retry(
        check_schema,
        on=SchemaOutdated,
        first=1.0,
        cap=1.0,
        within=deadline - clock(),
        on_retry=lambda error: log.warning("schema.awaited", reason=str(error)),
    )


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The database, up and migrated, its pool in the metrics. Raises what `make_ready` raises."""
    database = Database(settings)
    export_pool(database.engine)
    try:
        await make_ready(database)
        yield database
    finally:
        await database.close()
