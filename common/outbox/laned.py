"""An outbox whose items keep their order within lanes (`common.outbox.lanes`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Table, and_, update

from common.database.engine import Database
from common.outbox.claims import Statement, longest_due
from common.outbox.item import OutboxItem, OutboxState
from common.outbox.lanes import Lanes
from common.outbox.outbox import Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class LanedItem(OutboxItem):
    """An item with a place in a lane; without a user it has none."""

    user_id: str | None
    turn: float | None

    @property
    def place(self) -> tuple[float, ...]:
        return (self.turn or 0.0, -self.priority, self.id)


Item = TypeVar("Item", bound=LanedItem)


class LanedOutbox(Outbox[Item], Generic[Item]):
    """Claims items only when those ahead of them in their lanes have been sent."""

    def __init__(
        self, database: Database, table: Table, item: type[Item], *, lease: float, patience: float
    ) -> None:
        """`patience`: seconds for which one that is being sent is waited for."""
        super().__init__(database, table, item, lease=lease)
        lanes = Lanes(table, lease=lease, patience=patience)
        statement = self._claims.statement
        sending: dict[str, Any] = {"state": OutboxState.SENDING}
        due, first = self._due, lanes.is_first
        self._claim_due = statement(due, place=lanes.follows_due, lanes=lanes, **sending)
        self._claim_untried = statement(self._untried, place=first, **sending)
        self._claim_longest_due = statement(due, longest_due, place=first, **sending)
        self._claim_held = statement(self._held, longest_due, place=first, **sending)
        behind = lanes.is_behind
        self._claim_due_behind = statement(and_(due, behind), **sending)
        self._claim_held_behind = statement(and_(self._held, behind), **sending)

    async def claim_behind(self, item: Item) -> list[Item]:
        """Claim the next item of the lane behind this one, if it is due."""
        return await self._claim_next(self._claim_due_behind, item)

    async def claim_held_behind(self, item: Item) -> list[Item]:
        """Claim the next item of the lane behind this one, if it is held."""
        return await self._claim_next(self._claim_held_behind, item)

    async def _claim_next(self, statement: Statement, item: Item) -> list[Item]:
        return await self._claims.claim(
            statement,
            1,
            of_user=item.user_id,
            of_priority=item.priority,
            of_turn=item.turn,
            of_id=item.id,
        )

    async def set_aside(self, items: Sequence[Item]) -> None:
        """Let nothing wait for these items any more, whoever owns them."""
        table = self._table
        keys = [item.id for item in items]
        async with self._database.statement() as tx:
            await tx.execute(update(table).where(table.c.id.in_(keys)).values(set_aside=True))
