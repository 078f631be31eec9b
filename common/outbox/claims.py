"""Claims of outbox items: one statement each, under a token of its own.

When a connection breaks before a claim's answer arrives, its items are `sending` but never sent.
The token finds them, and the next claim gives them back: they need not be in doubt.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

from sqlalchemy import ColumnElement, Integer, Select, Table, and_, bindparam, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from common.database.engine import Database, utc_now
from common.database.tables import claim_order
from common.outbox.item import OutboxItem, OutboxState, state_is
from common.outbox.lanes import WINDOW, Lanes

Item = TypeVar("Item", bound=OutboxItem)
Statement = ReturningUpdate[Any]

_ORDERING: Final = ("id", "turn", "priority", "due_at")

Order = Callable[[Any], Sequence[ColumnElement[Any]]]
"""What orders the items of a table, or of a selection of them."""


def longest_due(table: Any) -> Sequence[ColumnElement[Any]]:
    """In turn, so that no single item keeps the others from an attempt."""
    return table.c.due_at, table.c.id


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
        self,
        condition: ColumnElement[bool],
        order: Order = claim_order,
        *,
        place: ColumnElement[bool] | None = None,
        lanes: Lanes | None = None,
        **values: Any,
    ) -> Statement:
        """Claim the first `claim_limit` items (a parameter) that no other claim has locked.

        `place` is a further condition, for which only the first items of those are looked at for
        which the other one holds. With `lanes`, several items of a lane may be claimed at
        once, if no other claim that is under way has one ahead of them.
        """
        columns = self._table.c
        head = self._head(condition, order, place)
        if self._database.is_sqlite:
            chosen: ColumnElement[bool] = columns.id.in_(head.with_only_columns(columns.id))
        else:
            # a materialised CTE: the planner may not run the locking sub-select twice
            locked = head.with_for_update(of=self._table, skip_locked=True)
            due = locked.cte("due").prefix_with("MATERIALIZED")
            chosen = columns.id == due.c.id
            if place is not None:
                # of the row as it was locked, which may have changed since the claim began
                chosen = and_(chosen, due.c.holds)
            if lanes is not None:
                chosen = and_(chosen, lanes.follows_only(select(due.c.id).where(due.c.holds)))
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

    def _head(
        self, condition: ColumnElement[bool], order: Order, place: ColumnElement[bool] | None
    ) -> Select[Any]:
        """The ids of the first items, and with `place` whether the condition holds."""
        columns = self._table.c
        if place is None:
            head = select(columns.id).where(condition).order_by(*order(self._table))
        else:
            needed = [columns[name] for name in _ORDERING if name in columns]
            window = select(*needed).where(condition).order_by(*claim_order(self._table))
            found = window.limit(WINDOW).correlate(None).subquery("next_due")
            # found by the key and ordered by the window's columns: so the planner has no choice but
            # to look at one item after the other, and at no more than are claimed
            joined = select(columns.id, condition.label("holds"))
            joined = joined.join(found, found.c.id == columns.id)
            head = joined.where(place).order_by(*order(found))
        return head.limit(bindparam("claim_limit", type_=Integer)).correlate(None)

    async def claim(self, statement: Statement, limit: int, **parameters: Any) -> list[Item]:
        """Claim up to `limit` items; they come in their order, whatever that of the choice."""
        if self._lost:
            await self._give_back_lost()
        owner = f"{self._process}:{uuid4().hex[:16]}"
        try:
            async with self._database.statement() as tx:
                claim = {"claim_limit": limit, "claim_owner": owner, **parameters}
                claimed = await tx.execute(statement, claim)
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
