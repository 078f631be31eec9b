"""A row of an outbox: its states, and the columns that every outbox has."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Table, literal_column

from common.database.engine import utc_now
from common.database.tables import ONCE_SETTLED


class OutboxState(StrEnum):
    """States of an item; `docs/states.md` has the diagram."""

    PENDING = "pending"
    """To be sent once `due_at` has come."""

    SENDING = "sending"
    """Claimed by `owner` until `leased_until`; perhaps sent already."""

    IN_DOUBT = "in_doubt"
    """Perhaps arrived; proof is awaited until `due_at`."""

    HELD = "held"
    """Refused for an operator's mistake (wrong key or address); sent once that is corrected."""

    DONE = "done"
    """Delivered. Settled, and pruned after a while."""

    DROPPED = "dropped"
    """No longer to be sent: what it was about was cancelled. Settled, and pruned after a while."""

    FAILED = "failed"
    """Refused for good, or given up. Settled, and pruned after a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxItem:
    """A claimed row. Its fields, and those that subclasses add, are the columns that a claim reads.

    `owner` is the token of the claim, `attempts` counts this attempt as well.
    """

    id: int
    owner: str
    attempts: int
    doubts: int
    priority: int
    correlation_id: str | None
    last_error: str | None

    @property
    def place(self) -> tuple[float, ...]:
        """What orders claimed items, as `common.database.tables.claim_order` does."""
        return (-self.priority, self.id)


def state_is(table: Table, state: OutboxState) -> ColumnElement[bool]:
    """Compare with a literal: a generic plan with a parameter cannot use the partial indexes."""
    return table.c.state == literal_column(f"'{state}'")


def settlement(table: Table, state: OutboxState) -> dict[str, Any]:
    """Values of an item that is never sent again: what only a delivery needs is given back."""
    spent = {c.name: c.info[ONCE_SETTLED] for c in table.c if ONCE_SETTLED in c.info}
    return {"state": state, "settled_at": utc_now(), **spent}
