"""The transactional outbox: items to be sent, each claimed by one daemon at a time.

Times are the database's clock.
"""

from collections.abc import Sequence
from typing import Any, Generic

from sqlalchemy import Table, and_, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.outbox.claims import Claims, Item
from common.outbox.item import OutboxItem, OutboxState, state_is
from common.outbox.settlements import Settlements


class Outbox(Generic[Item]):
    """What a daemon sends from one outbox table."""

    def __init__(self, database: Database, table: Table, item: type[Item], *, lease: float) -> None:
        """`item` names the columns that a claim reads; `lease`, in seconds, must outlast the total
        deadline of one delivery."""
        self._database = database
        self._table = table
        claims = self._claims = Claims(database, table, item, lease=lease)
        settlements = self._settlements = Settlements(database, table)
        columns = table.c
        by_age = (columns.priority.desc(), columns.id)
        longest_due = (columns.due_at, columns.id)
        due = and_(state_is(table, OutboxState.PENDING), columns.due_at <= utc_now())
        untried = and_(due, columns.attempts == 0)
        held = state_is(table, OutboxState.HELD)
        sending = {"state": OutboxState.SENDING}
        self._claim_due = claims.statement(due, *by_age, **sending)
        self._claim_untried = claims.statement(untried, *by_age, **sending)
        self._claim_longest_due = claims.statement(due, *longest_due, **sending)
        # in turn, so that no single item keeps the others from an attempt
        self._claim_held = claims.statement(held, *longest_due, **sending)
        # made once, for the hot path
        self._done = settlements.statement(
            OutboxState.SENDING, state=OutboxState.DONE, settled_at=utc_now(), last_error=None
        )

    # -- claiming ---------------------------------------------------------------------------

    async def claim(self, limit: int) -> list[Item]:
        """Claim up to `limit` due items: by priority, then age."""
        return await self._claims.claim(self._claim_due, limit)

    async def claim_one(self) -> list[Item]:
        """Claim the due item that shows most about the peer: an untried one, else the longest due.

        By priority and age, items that the peer never takes would be the only ones ever tried.
        """
        return await self._claims.claim(self._claim_untried, 1) or await self._claims.claim(
            self._claim_longest_due, 1
        )

    async def claim_held(self, limit: int) -> list[Item]:
        """Claim held items, to see whether the mistake that holds them has been corrected."""
        return await self._claims.claim(self._claim_held, limit)

    async def has_work(self, within: float) -> bool:
        """Whether any item is being sent or held, or comes due within that many seconds."""
        table = self._table
        soon = table.c.due_at <= utc_now(within)
        pending = exists().where(state_is(table, OutboxState.PENDING), soon)
        others = exists().where(
            or_(
                state_is(table, OutboxState.SENDING),
                state_is(table, OutboxState.HELD),
                and_(state_is(table, OutboxState.IN_DOUBT), soon),
            )
        )
        async with self._database.reading() as connection:
            return bool((await connection.execute(select(or_(pending, others)))).scalar_one())

    # -- settling ---------------------------------------------------------------------------

    async def done(self, items: Sequence[Item]) -> None:
        """The items were delivered."""
        await self._settlements.write(items, self._done)

    async def retry(self, items: Sequence[Item], delay: float, reason: str, **columns: Any) -> None:
        """Not taken: try again `delay` seconds from now. `columns` are set as well."""
        await self._settle(
            items,
            state=OutboxState.PENDING,
            due_at=utc_now(delay),
            last_error=reason,
            **columns,
        )

    async def doubt(self, items: Sequence[Item], wait: float, reason: str) -> None:
        """Perhaps arrived: wait `wait` seconds for proof."""
        await self._settle(
            items,
            state=OutboxState.IN_DOUBT,
            due_at=utc_now(wait),
            doubts=self._table.c.doubts + 1,
            last_error=reason,
        )

    async def hold(self, items: Sequence[Item], reason: str) -> None:
        """Refused because of an operator's mistake."""
        await self._settle(items, state=OutboxState.HELD, due_at=utc_now(), last_error=reason)

    async def release(self, items: Sequence[Item]) -> None:
        """Give claimed items back untried, as if they had not been claimed."""
        untried = self._table.c.attempts - 1
        await self._settle(items, state=OutboxState.PENDING, attempts=untried)

    async def fail(self, items: Sequence[Item], reason: str) -> None:
        """Refused for good."""
        await self._settlements.write(items, self._failed(reason))

    async def fail_in(self, tx: AsyncConnection, item: OutboxItem, reason: str) -> bool:
        """Fail within the caller's transaction; returns whether the item was still its owner's."""
        return await self._settlements.write_in(tx, [item], self._failed(reason)) > 0

    def _failed(self, reason: str) -> Any:
        return self._settlements.statement(
            OutboxState.SENDING, state=OutboxState.FAILED, settled_at=utc_now(), last_error=reason
        )

    async def _settle(self, items: Sequence[Item], **values: Any) -> None:
        statement = self._settlements.statement(OutboxState.SENDING, **values)
        await self._settlements.write(items, statement)

    async def release_held(self) -> int:
        """Make all held items due again; returns how many."""
        async with self._database.statement() as tx:
            released = await tx.execute(
                update(self._table)
                .where(state_is(self._table, OutboxState.HELD))
                .values(state=OutboxState.PENDING, due_at=utc_now())
            )
        return released.rowcount
