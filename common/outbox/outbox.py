"""The transactional outbox: items to be sent, each claimed by one daemon at a time.

Settling is a compare-and-set on (id, owner, attempts), and the owner is the token of one claim: an
owner whose lease has run out changes nothing. Times are the database's clock.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Generic

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    String,
    Table,
    Update,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded, utc_now
from common.outbox.claims import Claims, Item, longest_due
from common.outbox.item import OutboxState, settlement, state_is


class Outbox(Generic[Item]):
    """One outbox table, whose rows are claimed as instances of `item`."""

    def __init__(
        self,
        database: Database,
        table: Table,
        item: type[Item],
        *,
        lease: float,
        eligible: ColumnElement[bool] | None = None,
    ) -> None:
        """`item` names the columns that a claim reads; `lease`, in seconds, must outlast the total
        deadline of one delivery. Due items for which `eligible` does not hold are passed over."""
        self._database = database
        self._table = table
        claims = self._claims = Claims(database, table, item, lease=lease)
        columns = table.c
        is_due = columns.due_at <= utc_now()
        due = and_(state_is(table, OutboxState.PENDING), is_due)
        if eligible is not None:
            due = and_(due, eligible)
        untried = and_(due, columns.attempts == 0)
        held = state_is(table, OutboxState.HELD)
        self._due, self._untried, self._held = due, untried, held
        doubtful = and_(state_is(table, OutboxState.IN_DOUBT), is_due)
        sending: dict[str, Any] = {"state": OutboxState.SENDING}
        self._claim_due = claims.statement(due, **sending)
        self._claim_untried = claims.statement(untried, **sending)
        self._claim_longest_due = claims.statement(due, longest_due, **sending)
        self._claim_held = claims.statement(held, longest_due, **sending)
        self._claim_doubtful = claims.statement(doubtful, due_at=utc_now(lease))
        self._owners = select(columns.id, columns.owner).where(
            columns.id.in_(bindparam("ids", expanding=True))
        )
        # made once, for the hot path
        self._done = self._settlement(**settlement(table, OutboxState.DONE), last_error=None)

    # -- claiming ---------------------------------------------------------------------------

    async def claim(self, limit: int) -> list[Item]:
        """Claim up to `limit` due items, in the table's order."""
        return await self._claims.claim(self._claim_due, limit)

    async def claim_one(self) -> list[Item]:
        """Claim the due item that shows most about the peer: an untried one, else the longest due.

        In their order, items that the peer never takes would be the only ones ever tried.
        """
        return await self._claims.claim(self._claim_untried, 1) or await self._claims.claim(
            self._claim_longest_due, 1
        )

    async def claim_held(self, limit: int) -> list[Item]:
        """Claim held items, to see whether the mistake that holds them has been corrected."""
        return await self._claims.claim(self._claim_held, limit)

    async def claim_doubtful(self, limit: int) -> list[Item]:
        """Claim up to `limit` items whose wait for proof is over.

        They stay `in_doubt`, since a search for proof sends nothing; no other daemon searches
        before the lease is over.
        """
        return await self._claims.claim(self._claim_doubtful, limit)

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

    async def still_claimed(self, items: Sequence[Item]) -> list[Item]:
        """Those of the items (at least one) that are still their owner's: not dropped, nor gone."""
        values = {"ids": padded([item.id for item in items])}
        async with self._database.reading() as connection:
            rows = (await connection.execute(self._owners, values)).all()
        owners = {row.id: row.owner for row in rows}
        return [item for item in items if owners.get(item.id) == item.owner]

    # -- settling ---------------------------------------------------------------------------

    async def done(self, items: Sequence[Item], **columns: Any) -> None:
        """The items have arrived. `columns` are set as well."""
        if columns:
            done = settlement(self._table, OutboxState.DONE)
            await self._settle(items, **done, last_error=None, **columns)
        else:
            await self._write(items, self._done)

    async def drop(self, items: Sequence[Item], reason: str) -> None:
        """What the items were about was cancelled."""
        await self._settle(items, **settlement(self._table, OutboxState.DROPPED), last_error=reason)

    async def retry(self, items: Sequence[Item], delay: float, reason: str, **columns: Any) -> None:
        """Not taken: try again `delay` seconds from now. `columns` are set as well."""
        await self._settle(
            items, state=OutboxState.PENDING, due_at=utc_now(delay), last_error=reason, **columns
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

    async def postpone(self, items: Sequence[Item], wait: float, *, doubts: int = 0) -> None:
        """Leave items in doubt for `wait` seconds more, with so many more `doubts`."""
        await self._settle(items, due_at=utc_now(wait), doubts=self._table.c.doubts + doubts)

    async def resend(self, items: Sequence[Item], tx: AsyncConnection | None = None) -> int:
        """Items in doubt have not arrived: send them again. `tx` and the result as of `fail`."""
        return await self._settle(items, tx, state=OutboxState.PENDING, due_at=utc_now())

    async def hold(self, items: Sequence[Item], reason: str) -> None:
        """Refused because of an operator's mistake."""
        await self._settle(items, state=OutboxState.HELD, due_at=utc_now(), last_error=reason)

    async def release(self, items: Sequence[Item], reason: str | None = None) -> None:
        """Give claimed items back untried, as if they had not been claimed; `reason` is noted."""
        columns = self._table.c
        await self._settle(
            items,
            state=OutboxState.PENDING,
            attempts=columns.attempts - 1,
            last_error=reason or columns.last_error,
        )

    async def fail(
        self,
        items: Sequence[Item],
        reason: str,
        tx: AsyncConnection | None = None,
        **columns: Any,
    ) -> int:
        """Refused for good, or given up; within the transaction `tx`, if there is one.

        `columns` are set as well. Returns how many items were still their owner's.
        """
        return await self._settle(
            items, tx, **settlement(self._table, OutboxState.FAILED), last_error=reason, **columns
        )

    async def release_held(self) -> int:
        """Make all held items due again; returns how many."""
        async with self._database.statement() as tx:
            released = await tx.execute(
                update(self._table)
                .where(state_is(self._table, OutboxState.HELD))
                .values(state=OutboxState.PENDING, due_at=utc_now())
            )
        return released.rowcount

    async def _settle(
        self, items: Sequence[Item], tx: AsyncConnection | None = None, **values: Any
    ) -> int:
        return await self._write(items, self._settlement(**values), tx)

    def _settlement(self, **values: Any) -> Update:
        table = self._table.c
        key = tuple_(table.id, table.owner, table.attempts)
        if self._database.is_sqlite:
            is_claimed = key.in_(bindparam("claimed", expanding=True))
        else:
            # arrays: one prepared statement for any number of items
            is_claimed = key.in_(
                select(
                    func.unnest(bindparam("claimed_ids", type_=ARRAY(BigInteger))),
                    func.unnest(bindparam("claimed_owners", type_=ARRAY(String))),
                    func.unnest(bindparam("claimed_attempts", type_=ARRAY(Integer))),
                )
            )
        return update(self._table).where(is_claimed).values(owner=None, leased_until=None, **values)

    async def _write(
        self, items: Sequence[Item], statement: Update, tx: AsyncConnection | None = None
    ) -> int:
        if not items:
            return 0
        claimed: dict[str, list[Any]]
        if self._database.is_sqlite:
            claimed = {"claimed": [(item.id, item.owner, item.attempts) for item in items]}
        else:
            claimed = {
                "claimed_ids": [item.id for item in items],
                "claimed_owners": [item.owner for item in items],
                "claimed_attempts": [item.attempts for item in items],
            }
        async with nullcontext(tx) if tx else self._database.statement() as connection:
            return (await connection.execute(statement, claimed)).rowcount
