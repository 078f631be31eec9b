"""How many jobs a user has under way."""

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.tables import jobs
from common.jobs.lifecycle import Status

_count = (
    select(func.count())
    .select_from(jobs)
    .where(
        jobs.c.user_id == bindparam("user_id"),
        jobs.c.status.not_in((Status.FINISHED, Status.ERROR)),
        jobs.c.deleted_at.is_(None),
    )
)


async def count_unfinished(connection: AsyncConnection, user_id: str) -> int:
    """The user's jobs that have not ended, without deleted ones."""
    return int((await connection.execute(_count, {"user_id": user_id})).scalar_one())
