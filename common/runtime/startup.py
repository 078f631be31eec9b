"""What a process waits for before it starts: the database, then the schema that it needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.pool import export_pool
from common.database.schema import SchemaOutdated, current, migrate, revisions
from common.telemetry.logs import get_logger

log = get_logger()


async def make_ready(database: Database) -> None:
    """Wait for the database at a process's start, then for the schema that it needs.

    SQLite is migrated here and now; PostgreSQL by whoever runs `python -m common.migrate`. A schema
    of a newer version is fine: migrations keep the version before them running. Raises
    `DatabaseUnavailable` or `SchemaOutdated` when the start-up time-out has passed.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + database.settings.startup_timeout
    await database.wait_until_up(database.settings.startup_timeout)
    known = revisions()
    needed = known[-1]
    while (found := await current(database)) != needed:
        if found is not None and found not in known:
            return
        if database.is_sqlite:
            await migrate(database)
            return
        if loop.time() >= deadline:
            raise SchemaOutdated(
                f"the database is at revision {found or 'none'}, {needed} is needed:"
                " run python -m common.migrate"
            )
        log.warning("schema.awaited", found=found, needed=needed)
        await asyncio.sleep(1.0)


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
