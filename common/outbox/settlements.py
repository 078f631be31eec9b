"""Settlements of claimed items: a compare-and-set on (id, owner, attempts).

An owner whose lease has run out changes nothing. One statement settles any number of items alike.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    String,
    Table,
    Update,
    bindparam,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.outbox.item import OutboxItem, OutboxState, state_is


class Settlements:
    """Writes outcomes into one outbox table."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._table = table

    def statement(self, before: OutboxState, **values: Any) -> Update:
        """Settle the claimed items that are still in the state `before`."""
        return (
            update(self._table)
            .where(self._is_claimed(), state_is(self._table, before))
            .values(owner=None, leased_until=None, **values)
        )

    def _is_claimed(self) -> ColumnElement[bool]:
        table = self._table.c
        key = tuple_(table.id, table.owner, table.attempts)
        if self._database.is_sqlite:
            return key.in_(bindparam("claimed", expanding=True))
        # arrays: one prepared statement for any number of items
        return key.in_(
            select(
                func.unnest(bindparam("claimed_ids", type_=ARRAY(BigInteger))),
                func.unnest(bindparam("claimed_owners", type_=ARRAY(String))),
                func.unnest(bindparam("claimed_attempts", type_=ARRAY(Integer))),
            )
        )

    async def write(self, items: Sequence[OutboxItem], statement: Update) -> None:
        """Settle the items by a statement of `statement()`, in a transaction of its own."""
        if items:
            async with self._database.statement() as tx:
                await self.write_in(tx, items, statement)

    async def write_in(
        self, tx: AsyncConnection, items: Sequence[OutboxItem], statement: Update
    ) -> int:
        """Settle within the caller's transaction; returns how many were still their owner's."""
        claimed: dict[str, list[Any]]
        if self._database.is_sqlite:
            claimed = {"claimed": [(item.id, item.owner, item.attempts) for item in items]}
        else:
            claimed = {
                "claimed_ids": [item.id for item in items],
                "claimed_owners": [item.owner for item in items],
                "claimed_attempts": [item.attempts for item in items],
            }
        return (await tx.execute(statement, claimed)).rowcount
