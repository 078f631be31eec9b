"""How items of an outbox are claimed, and what becomes of a claim whose answer is lost.

A claim is one statement. Where the connection breaks before its answer is here, its items are
`sending`, and nobody knows of them: they were never sent, so they need not be in doubt.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, Table, bindparam, select, update

from common.database.engine import utc_now

Key = tuple[int, int]
"""Id and attempt: what tells one claim of an item from any other."""


def claim_statement(
    table: Table,
    condition: ColumnElement[bool],
    order: Sequence[ColumnElement[Any]],
    *,
    owner: str,
    lease: float,
    is_sqlite: bool,
    without: Collection[str] = (),
    **values: Any,
) -> Any:
    """Take the first `claim_limit` items (a parameter) that nobody else is at; returns the rows,
    `without` the columns of these names."""
    columns = table.c
    head = (
        select(columns.id)
        .where(condition)
        .order_by(*order)
        .limit(bindparam("claim_limit", type_=Integer))
        .with_for_update(skip_locked=True)
    )
    if is_sqlite:
        chosen: ColumnElement[bool] = columns.id.in_(head)
    else:
        # a materialised CTE: the planner may not run the locking sub-select twice
        due = head.cte("due").prefix_with("MATERIALIZED")
        chosen = columns.id == due.c.id
    return (
        update(table)
        .where(chosen)
        .values(owner=owner, attempts=columns.attempts + 1, leased_until=utc_now(lease), **values)
        .returning(*(column for column in columns if column.name not in without))
    )


class Claims:
    """What one owner has claimed and may have sent, as far as it is not known to be settled.

    `give_back` makes due again whatever of this owner's is `sending` but for the given keys.
    """

    def __init__(self, give_back: Callable[[Collection[Key]], Awaitable[object]]) -> None:
        self._give_back = give_back
        self._known: set[Key] = set()
        self._one_was_lost = False

    async def begin(self) -> None:
        """A claim is about to be made; gives back what an earlier one has taken unseen.

        Claims are made one after the other; what another one is just being told would count as
        lost.
        """
        if self._one_was_lost:
            await self._give_back(self._known)
        self._one_was_lost = True  # until its answer is here

    def answered(self, keys: Iterable[Key]) -> None:
        """The claim's answer is here."""
        self._one_was_lost = False
        self._known.update(keys)

    def forget(self, keys: Iterable[Key]) -> None:
        """These are settled for sure."""
        self._known.difference_update(keys)
