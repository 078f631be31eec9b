"""The schema's revision and its migrations (Alembic).

Several processes may migrate at once: one does so in one transaction, the others wait for it.
Alembic is large, so that only a process that migrates imports it.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, text

from common.database.engine import Database

_LOCK_KEY: Final = 7_236_641_590_137
"""Key of the advisory lock of the migrating process; arbitrary, but it must never change."""

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class SchemaOutdated(Exception):
    """The database's schema is not the one that this version needs."""


class UnknownRevision(Exception):
    """This version of the code does not have the revision; the message is a sentence."""


def revisions() -> list[str]:
    """All revisions that this version of the code knows; it needs the last one."""
    names = (_MIGRATIONS / "versions").glob("v[0-9]*.py")
    return sorted(name.stem.partition("_")[0].removeprefix("v") for name in names)


async def migrate(database: Database, revision: str = "head", *, down: bool = False) -> None:
    """Migrate to `revision` in one transaction; does nothing if the database is at it.

    A database at a revision of a newer version is left alone: this version works with it. Raises
    `UnknownRevision` if there is no such revision, or none to downgrade from, and `CannotDowngrade`
    if a downgrade would bring jobs back whose deletion is under way.
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
    """The database's revision; None if it was never migrated."""
    async with database.reading() as connection:
        return await connection.run_sync(_revision_of)


def _revision_of(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
