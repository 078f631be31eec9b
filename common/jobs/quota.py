"""How many jobs a user has under way, counted by an index of its own."""

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.tables import UNFINISHED, jobs

_count = (
    select(func.count())
    .select_from(jobs)
    # literally the index's condition: a plan with parameters could not use it
    .where(jobs.c.user_id == bindparam("user_id"), text(UNFINISHED))
)


async def count_unfinished(connection: AsyncConnection, user_id: str) -> int:
    """The user's jobs that have not ended, without deleted ones."""
    return int((await connection.execute(_count, {"user_id": user_id})).scalar_one())
