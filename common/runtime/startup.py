"""What a process waits for before it starts: the database, then the schema that it needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError

from common.config.settings import DatabaseSettings
from common.database.engine import Database
from common.database.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    first_cause,
    is_wrong_password,
)
from common.database.pool import export_pool
from common.database.schema import SchemaOutdated, current, migrate, revisions
from common.runtime.retry import retry
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

_NO_FILE: Final = "unable to open database file"
"""SQLite's words."""

log = get_logger()


async def wait_until_up(database: Database, seconds: float) -> None:
    """Wait for the database to answer.

    Raises `DatabaseUnavailable` after `seconds`, `DatabaseRefused` at once.
    """

    async def ping() -> None:
        try:
            await database.ping()
        except DatabaseUnavailable as error:
            if _NO_FILE in str(error):  # its directory exists, so that waiting would not help
                raise DatabaseRefused(str(error)) from error
            raise
        except (DBAPIError, TypeError) as error:  # how drivers report unknown parameters
            place = database.settings.place
            raise DatabaseRefused(f"{place}: {first_cause(error)}") from error

    await retry(
        ping,
        on=DatabaseUnavailable,
        unless=DatabaseRefused,
        first=0.5,
        cap=1.0,
        within=seconds,
        on_retry=lambda error: warn_of_database("database.awaited", reason=str(error)),
    )


async def missing_revision(database: Database) -> str | None:
    """A sentence about the migration that is missing; None if this version can use the schema."""
    found, known = await current(database), revisions()
    if found == known[-1] or (found is not None and found not in known):
        return None
    return (
        f"the database is at revision {found or 'none'}, {known[-1]} is needed:"
        " run python -m common.migrate"
    )


async def make_ready(database: Database) -> None:
    """Wait for the database, then for the schema that this version needs.

    SQLite is migrated here; PostgreSQL by `python -m common.migrate`. A schema of a newer version
    is accepted: migrations keep the version before them running. Raises `DatabaseUnavailable` or
    `SchemaOutdated` when the start-up time-out has passed.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + database.settings.startup_timeout

    async def check_schema() -> None:
        lacks = await missing_revision(database)
        if lacks is None:
            return
        if database.is_sqlite:
            await migrate(database)
            return
        raise SchemaOutdated(lacks)

    await wait_until_up(database, database.settings.startup_timeout)
    await retry(
        check_schema,
        on=SchemaOutdated,
        first=1.0,
        cap=1.0,
        within=deadline - clock(),
        on_retry=lambda error: log.warning("schema.awaited", reason=str(error)),
    )


async def accepted(settings: DatabaseSettings) -> DatabaseSettings:
    """The settings with the secret that the database accepts: as it is, or percent-decoded.

    The service before this one needed a secret that was percent-encoded by hand. Waits as
    `wait_until_up` does, and only for a secret that looks like one.
    """
    decoded = settings.decoded
    if decoded is None:
        return settings
    database = Database(settings)
    try:
        await wait_until_up(database, settings.startup_timeout)
    except DatabaseRefused as error:
        if not is_wrong_password(error):
            raise
        log.warning("settings.secret_encoded", variable="DATABASE_SECRET")
        return decoded
    finally:
        await database.close()
    return settings


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The database, up and migrated, its pool in the metrics. Raises what `make_ready` raises."""
    database = Database(await accepted(settings))
    export_pool(database.engine)
    try:
        await make_ready(database)
        yield database
    finally:
        await database.close()
