"""Items in doubt: a delivery without an answer, whose proof of arrival is looked for."""

from typing import Any, Generic, TypeVar

from sqlalchemy import Table, and_
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.outbox.claims import Claims
from common.outbox.item import OutboxItem, OutboxState, state_is
from common.outbox.settlements import Settlements

Doubtful = TypeVar("Doubtful", bound=OutboxItem)


class Doubts(Generic[Doubtful]):
    """The items in doubt of one outbox table.

    Claimed ones stay `in_doubt`, since a search for proof sends nothing; for `lease` seconds no
    other daemon searches. `item` should leave out columns that only sending needs, which may hold
    megabytes.
    """

    def __init__(
        self, database: Database, table: Table, item: type[Doubtful], *, lease: float
    ) -> None:
        self._table = table
        self._claims = Claims(database, table, item, lease=lease)
        self._settlements = Settlements(database, table)
        waited = and_(state_is(table, OutboxState.IN_DOUBT), table.c.due_at <= utc_now())
        order = (table.c.priority.desc(), table.c.id)
        self._claim = self._claims.statement(waited, *order, due_at=utc_now(lease))

    async def claim(self, limit: int) -> list[Doubtful]:
        """Claim up to `limit` items whose wait for proof is over."""
        return await self._claims.claim(self._claim, limit)

    async def confirm(self, item: Doubtful) -> None:
        """The item has arrived."""
        await self._settle(item, state=OutboxState.DONE, settled_at=utc_now(), last_error=None)

    async def resend(self, item: Doubtful) -> None:
        """The item has not arrived."""
        await self._settle(item, state=OutboxState.PENDING, due_at=utc_now())

    async def resend_in(self, tx: AsyncConnection, item: Doubtful) -> bool:
        """Resend within the caller's transaction; returns whether it was still in doubt."""
        statement = self._settlements.statement(
            OutboxState.IN_DOUBT, state=OutboxState.PENDING, due_at=utc_now()
        )
        return await self._settlements.write_in(tx, [item], statement) > 0

    async def postpone(self, item: Doubtful, wait: float, *, counts: bool) -> None:
        """Look again after `wait` seconds; `counts`: this search adds to the doubts."""
        doubts = self._table.c.doubts + (1 if counts else 0)
        await self._settle(item, due_at=utc_now(wait), doubts=doubts)

    async def give_up(self, item: Doubtful, reason: str) -> None:
        """The item was not found, and is not sent again."""
        await self._settle(item, state=OutboxState.FAILED, settled_at=utc_now(), last_error=reason)

    async def _settle(self, item: Doubtful, **values: Any) -> None:
        statement = self._settlements.statement(OutboxState.IN_DOUBT, **values)
        await self._settlements.write([item], statement)
