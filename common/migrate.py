"""Bring the database up to date: `python -m common.migrate [upgrade|downgrade|current] [REVISION]`.

Safe when several processes start at once: one migrates in one transaction, the others wait for it.
Alembic is large, and imported only by the process that migrates.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop
from sqlalchemy import Connection, inspect, text

from common import logs
from common.connection_pool import export_pool
from common.database import Database
from common.database_errors import DatabaseRefused, DatabaseUnavailable
from common.environment import Reader, exit_with, load_or_exit
from common.settings import DatabaseSettings, LogSettings, read_database, read_logs

_LOCK_KEY: Final = 7_236_641_590_137
"""Key of the advisory lock that one migrating process holds; arbitrary, but never to change."""


_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class SchemaOutdated(Exception):
    """The database's schema is not the one that this version needs."""


class UnknownRevision(Exception):
    """A revision that this version of the code does not have; the message is a sentence."""


def revisions() -> list[str]:
    """All revisions that this version of the code knows, the one that it needs last."""
    names = (_MIGRATIONS / "versions").glob("v[0-9]*.py")
    return sorted(name.stem.partition("_")[0].removeprefix("v") for name in names)


async def migrate(database: Database, revision: str = "head", *, down: bool = False) -> None:
    """Migrate to `revision` in one transaction; does nothing where it is there already.

    Nor is anything done where a newer version has been here already: this one can work with what
    that left. Raises `UnknownRevision` where it would have to go to, or back from, a revision of
    which it has no migration.
    """
    from alembic import command
    from alembic.config import Config

    known = revisions()
    if revision not in (*known, "base" if down else "head"):
        raise UnknownRevision(f"there is no revision {revision}, only {', '.join(known)}.")
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    run = command.downgrade if down else command.upgrade

    def run_alembic(connection: Connection) -> None:
        found = _revision_of(connection)
        if found is not None and found not in known:
            if down:
                raise UnknownRevision(
                    f"the database is at revision {found}, which this version does not know:"
                    " go back with the version that made it."
                )
            return
        config.attributes["connection"] = connection
        run(config, revision)

    async with database.transaction() as tx:
        if not database.is_sqlite:
            await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        await tx.run_sync(run_alembic)


async def current(database: Database) -> str | None:
    """The revision at which the database is; None for one that was never migrated."""
    async with database.reading() as connection:
        return await connection.run_sync(_revision_of)


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


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
        logs.get_logger().warning("schema.awaited", found=found, needed=needed)
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


def _load(reader: Reader) -> tuple[DatabaseSettings, LogSettings]:
    return read_database(reader), read_logs(reader)


async def _run(settings: DatabaseSettings, arguments: Any) -> None:
    # an index over a large table takes its time
    database = Database(replace(settings, command_timeout=None))
    try:
        await database.wait_until_up(settings.startup_timeout)
        if arguments.action == "current":
            print(await current(database) or "none")
            return
        await migrate(database, arguments.revision, down=arguments.action == "downgrade")
        found = await current(database) or "none"
        newer = "" if found in ("none", *revisions()) else ", of a newer version: left as it is"
        print(f"The database is at revision {found}{newer}.")
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.migrate", description=__doc__)
    parser.add_argument(
        "action", nargs="?", default="upgrade", choices=("upgrade", "downgrade", "current")
    )
    parser.add_argument("revision", nargs="?", default="head")
    arguments = parser.parse_args()
    if arguments.action == "downgrade" and arguments.revision == "head":
        parser.error("name the revision to go back to, or 'base'")
    settings, log_settings = load_or_exit("migrate", _load)
    logs.configure("migrate", log_settings)
    try:
        uvloop.run(_run(settings, arguments))
    except UnknownRevision as error:
        exit_with("migrate", str(error))
    except DatabaseRefused as error:
        exit_with("migrate", f"DATABASE_URL or DATABASE_SECRET is wrong ({error}).")
    except DatabaseUnavailable as error:
        exit_with("migrate", f"the database did not answer ({error}).")


if __name__ == "__main__":
    main()
