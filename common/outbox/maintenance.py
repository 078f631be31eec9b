"""Maintenance of an outbox, across all owners: expired leases, settled history, counts."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    ScalarSelect,
    Subquery,
    Table,
    delete,
    func,
    or_,
    select,
    true,
    update,
)

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.outbox.item import OutboxState, state_is
from common.telemetry.logs import get_logger

COURTESY: Final = 3.0
"""Seconds that owners get to write outcomes after the database was away; they try every second."""

_UNSETTLED: Final = (OutboxState.SENDING, OutboxState.IN_DOUBT, OutboxState.HELD)

log = get_logger()


@dataclass(frozen=True, slots=True)
class Backlog:
    """Counts of unsettled items by state (pending ones are `due` or `waiting`), and two ages in
    seconds, 0 where there is none: how long the longest due item has been due, and how long ago the
    oldest item was written."""

    counts: Mapping[str, int]
    oldest_due_age: float
    oldest_age: float


class OutboxMaintenance:
    """Maintains one outbox table; each call is one bounded statement."""

    def __init__(self, database: Database, table: Table, *, courtesy: float = COURTESY) -> None:
        self._database = database
        self._table = table
        self._courtesy = courtesy
        self._was_away = False
        self._courteous_until = float("-inf")

    async def doubt_expired(self, wait: float, limit: int) -> int:
        """Put items whose owner's lease has run out in doubt; returns how many.

        None in the first seconds after the database was away: the owners are alive, and about to
        write the outcomes of their calls.
        """
        if self._was_away or time.monotonic() < self._courteous_until:
            await self._database.ping()
            if self._was_away:
                self._was_away = False
                self._courteous_until = time.monotonic() + self._courtesy
            return 0
        table = self._table.c
        expired = (
            select(table.id)
            .where(state_is(self._table, OutboxState.SENDING), table.leased_until < utc_now())
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(self._table)
            .where(table.id.in_(expired))
            .values(
                state=OutboxState.IN_DOUBT,
                due_at=utc_now(wait),
                doubts=table.doubts + 1,
                owner=None,
                leased_until=None,
                last_error="the daemon that sent it did not report back",
            )
        )
        try:
            count = await self._execute(statement)
        except DatabaseUnavailable:
            self._was_away = True
            raise
        if count:
            log.warning("leases.expired", count=count)
        return count

    async def prune(self, age: float, limit: int) -> int:
        """Remove items settled more than `age` seconds ago; returns how many."""
        table = self._table.c
        old = (
            select(table.id)
            .where(table.settled_at < utc_now(-age))
            .order_by(table.settled_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return await self._execute(delete(self._table).where(table.id.in_(old)))

    async def _execute(self, statement: Any) -> int:
        async with self._database.statement() as tx:
            return int((await tx.execute(statement)).rowcount)

    async def backlog(self) -> Backlog:
        """Count unsettled items; pending ones by themselves, which reads an index only."""
        waits = state_is(self._table, OutboxState.PENDING)
        others = {state: state_is(self._table, state) for state in _UNSETTLED}
        is_due = self._table.c.due_at <= utc_now()
        pending = self._counted(
            waits,
            func.count().filter(is_due).label("due"),
            func.count().label("pending"),
            func.min(self._table.c.due_at).filter(is_due).label("due_since"),
        )
        rest = self._counted(
            or_(*others.values()),
            *(func.count().filter(is_so).label(state) for state, is_so in others.items()),
        )
        statement = select(
            pending,
            rest,
            self._written(pending.c.oldest_id).label("pending_since"),
            self._written(rest.c.oldest_id).label("rest_since"),
            utc_now().label("now"),
        ).join_from(pending, rest, true())
        async with self._database.reading() as connection:
            row: RowMapping = (await connection.execute(statement)).mappings().one()
        return Backlog(
            counts={
                "due": row["due"],
                "waiting": row["pending"] - row["due"],
                **{state.value: row[state] for state in _UNSETTLED},
            },
            oldest_due_age=_age(row["now"], row["due_since"]),
            oldest_age=max(_age(row["now"], row[f"{part}_since"]) for part in ("pending", "rest")),
        )

    def _counted(self, condition: ColumnElement[bool], *counts: ColumnElement[Any]) -> Subquery:
        oldest = func.min(self._table.c.id).label("oldest_id")
        return select(*counts, oldest).where(condition).subquery()

    def _written(self, item_id: ColumnElement[int]) -> ScalarSelect[Any]:
        """When an item was written: in the order of their ids."""
        return select(self._table.c.created_at).where(self._table.c.id == item_id).scalar_subquery()


def _age(now: datetime, since: datetime | None) -> float:
    return 0.0 if since is None else (now - since).total_seconds()
