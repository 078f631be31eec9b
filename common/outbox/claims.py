"""Claims of outbox items: one statement each, under a token of its own.

When a connection breaks before a claim's answer arrives, its items are `sending` but never sent.
The token finds them, and the next claim gives them back: they need not be in doubt.
"""

import os
import socket
from dataclasses import fields
from typing import Any, Generic, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Integer, Table, bindparam, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from common.database.engine import Database, utc_now
from common.outbox.item import OutboxItem, OutboxState, state_is

Item = TypeVar("Item", bound=OutboxItem)
Statement = ReturningUpdate[Any]


class Claims(Generic[Item]):
    """Claims items of one table as instances of `item`."""

    def __init__(self, database: Database, table: Table, item: type[Item], *, lease: float) -> None:
        """`lease`, in seconds, is how long a claimed item belongs to its owner."""
        self._database = database
        self._table = table
        self._item = item
        self._lease = lease
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._lost: set[str] = set()

    def statement(
        self, condition: ColumnElement[bool], *order: ColumnElement[Any], **values: Any
    ) -> Statement:
        """Claim the first `claim_limit` items (a parameter) that no other claim has locked."""
        columns = self._table.c
        head = (
            select(columns.id)
            .where(condition)
            .order_by(*order)
            .limit(bindparam("claim_limit", type_=Integer))
            .with_for_update(skip_locked=True)
        )
        if self._database.is_sqlite:
            chosen: ColumnElement[bool] = columns.id.in_(head)
        else:
            # a materialised CTE: the planner may not run the locking sub-select twice
            due = head.cte("due").prefix_with("MATERIALIZED")
            chosen = columns.id == due.c.id
        return (
            update(self._table)
            .where(chosen)
            .values(
                owner=bindparam("claim_owner"),
                attempts=columns.attempts + 1,
                leased_until=utc_now(self._lease),
                **values,
            )
            .returning(*(columns[field.name] for field in fields(self._item)))
        )

    async def claim(self, statement: Statement, limit: int) -> list[Item]:
        """Claim up to `limit` items; they come in their order, whatever that of the choice."""
        if self._lost:
            await self._give_back_lost()
        owner = f"{self._process}:{uuid4().hex[:16]}"
        try:
            async with self._database.statement() as tx:
                claimed = await tx.execute(statement, {"claim_limit": limit, "claim_owner": owner})
                rows = claimed.mappings().all()
        except BaseException:
            self._lost.add(owner)
            raise
        items = [self._item(**row) for row in rows]
        return sorted(items, key=lambda item: item.place)

    async def _give_back_lost(self) -> None:
        table, lost = self._table, set(self._lost)
        given_back = {"state": OutboxState.PENDING, "owner": None, "leased_until": None}
        async with self._database.statement() as tx:
            await tx.execute(
                update(table)
                .where(state_is(table, OutboxState.SENDING), table.c.owner.in_(lost))
                .values(attempts=table.c.attempts - 1, **given_back)
            )
        self._lost -= lost
