"""Whether the storage and the database belong together: users with jobs have files."""

import asyncio
from typing import Final

from sqlalchemy import select

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.tables import jobs
from common.storage.errors import InvalidPath, StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger

_NEWEST_JOBS: Final = 200
_USERS: Final = 20
_TIMEOUT: Final = 5.0

log = get_logger()


async def warn_of_missing_trees(database: Database, storage: Storage, place: str) -> None:
    """Log a warning if there are jobs, but no tree for any of the users of the newest ones.

    After a take-over this means that `USER_DATA_ROOT_PATH` is not spelled as it was. `place` is for
    the log.
    """
    try:
        async with asyncio.timeout(_TIMEOUT):
            users = await _users(database)
            for user in users:
                if await _has_tree(storage, user):
                    return
    except (DatabaseUnavailable, StorageError, TimeoutError):
        return  # logged where it matters
    if users:
        log.warning("trees.missed", place=place, users=len(users))


async def _users(database: Database) -> list[str]:
    """Users of the newest jobs: all jobs would be too many to read at a start."""
    newest = (
        select(jobs.c.user_id)
        .where(jobs.c.deleted_at.is_(None))
        .order_by(jobs.c.id.desc())
        .limit(_NEWEST_JOBS)
        .subquery()
    )
    async with database.reading() as connection:
        found = await connection.scalars(select(newest.c.user_id).distinct().limit(_USERS))
        return list(found)


async def _has_tree(storage: Storage, user: str) -> bool:
    try:
        return await storage.has_tree(user)
    except InvalidPath:
        return False
