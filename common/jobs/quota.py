"""How many jobs a user has under way, counted by an index of its own."""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import BigInteger, String, bindparam, cast, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.tables import UNFINISHED, jobs

_LOCKS: Final = 5_140_923_861_027
"""Seed of the advisory locks; arbitrary, but the same in all processes."""

_lock = select(
    func.pg_advisory_xact_lock(
        func.hashtextextended(bindparam("user_id", type_=String), cast(_LOCKS, BigInteger))
    )
)

_count = (
    select(func.count())
    .select_from(jobs)
    # literally the index's condition: a plan with parameters could not use it
    .where(jobs.c.user_id == bindparam("user_id"), text(UNFINISHED))
)


async def count_unfinished(connection: AsyncConnection, user_id: str) -> int:
    """The user's jobs that have not ended, without deleted ones."""
    return int((await connection.execute(_count, {"user_id": user_id})).scalar_one())


async def lock_counts(tx: AsyncConnection, user_ids: Iterable[str]) -> None:
    """Let nobody else add jobs of these users until the transaction ends, so that a count holds.

    On SQLite a writing transaction is alone as it is.
    """
    if tx.dialect.name != "sqlite":
        for user_id in sorted(user_ids):  # in one order everywhere: no deadlocks
            await tx.execute(_lock, {"user_id": user_id})
