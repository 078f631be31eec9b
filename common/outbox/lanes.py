"""Order within a lane: of one user and priority, an item waits for those ahead of it.

It waits for what is still to be sent: pending items, due or not, held ones, and those being sent,
since they may come back. It does not wait for one in doubt, nor for one that has been on its way
for so long that it may as well be, nor for one that is set aside: not taken again and again, while
the next one was. Items without a user (rows of versions before 0008) have no lane.
"""

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Table,
    and_,
    bindparam,
    literal,
    not_,
    or_,
    select,
)
from sqlalchemy.types import Float, String

from common.database.engine import utc_now
from common.outbox.item import OutboxState, state_is

WINDOW: Final = 200
"""Due items, in their order, among which a claim looks for those that need not wait: so that its
cost does not grow with a lane that is at a standstill."""


class Lanes:
    """The lanes of one outbox table; its conditions are about the rows of `table`."""

    def __init__(self, table: Table, *, lease: float, patience: float) -> None:
        """`patience`: seconds after its claim from which an item being sent is not waited for."""
        ahead: Any = table.alias("ahead")
        self._table, self._ahead = table, ahead
        self._still_sending = utc_now(lease - patience)
        self._is_awaited = and_(
            ahead.c.user_id == table.c.user_id,
            ahead.c.priority == table.c.priority,
            ahead.c.turn <= table.c.turn,  # for the index; the next condition is exact
            or_(ahead.c.turn < table.c.turn, ahead.c.id < table.c.id),
            self._is_to_be_sent(ahead),
        )
        self.is_first = self._nothing_awaited()
        """The item waits for no other."""
        is_due = and_(state_is(ahead, OutboxState.PENDING), ahead.c.due_at <= utc_now())
        self.follows_due = self._nothing_awaited(not_(is_due))
        """The item waits at most for others that are due as well."""
        self.is_behind = table.c.id == self._next_behind()
        """The item is the next one behind that of the parameters."""

    def follows_only(self, items: Select[Any]) -> ColumnElement[bool]:
        """The item waits at most for those whose ids are given."""
        return self._nothing_awaited(self._ahead.c.id.not_in(items))

    def _nothing_awaited(self, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        # the first one by the index, whatever the planner believes about how many there are
        found = select(literal(1)).where(self._is_awaited, *conditions)
        found = found.order_by(self._ahead.c.turn).limit(1)
        return found.correlate(self._table).scalar_subquery().is_(None)

    def _next_behind(self) -> ColumnElement[int]:
        turn, item_id = bindparam("of_turn", type_=Float), bindparam("of_id", type_=Integer)
        behind: Any = self._table.alias("behind")
        return (
            select(behind.c.id)
            .where(
                behind.c.user_id == bindparam("of_user", type_=String),
                behind.c.priority == bindparam("of_priority", type_=Integer),
                behind.c.turn >= turn,
                or_(behind.c.turn > turn, behind.c.id > item_id),
                self._is_to_be_sent(behind),
            )
            .order_by(behind.c.turn, behind.c.id)
            .limit(1)
            .scalar_subquery()
        )

    def _is_to_be_sent(self, table: Any) -> ColumnElement[bool]:
        is_on_its_way = and_(
            state_is(table, OutboxState.SENDING), table.c.leased_until > self._still_sending
        )
        return and_(
            table.c.settled_at.is_(None),
            not_(table.c.set_aside),
            or_(
                state_is(table, OutboxState.PENDING),
                state_is(table, OutboxState.HELD),
                is_on_its_way,
            ),
        )
