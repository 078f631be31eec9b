"""Cancellation: a user's jobs end in `error`, nothing more of them is sent, and their workers stop.

The peer cannot be told to cancel. A worker learns it from the answer to its next report (see
`common.jobs.updates`), and a hand-over that has not gone out never does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded
from common.database.notify import EMAILS, EVENTS, WEBHOOKS, ChannelNotifier
from common.database.tables import emails, handovers, jobs
from common.jobs.details import details_size, overflows
from common.jobs.digest import leave_out, write_digest
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Cancellation, Source, Status, cancel
from common.jobs.updates import cut_events, write_cancelled
from common.outbox.item import OutboxState, settlement, state_is

AT_ONCE: Final = 200
"""Jobs that one transaction cancels: it holds their rows."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A user's wish to cancel; `by` is the e-mail address, or the user's id without one."""

    user_id: str
    by: str
    reason: str | None

    @property
    def line(self) -> str:
        """The line in the job's run-time details."""
        return f"Cancelled by {self.by}" + (f": {self.reason}" if self.reason else "")


async def cancel_jobs(
    database: Database, notifier: ChannelNotifier, wish: Wish, job_ids: Collection[int]
) -> dict[int, Cancellation]:
    """Cancel jobs of the user; what that comes to for each, in the order of `job_ids`."""
    results: dict[int, Cancellation] = dict.fromkeys(job_ids, Cancellation.NOT_FOUND)
    distinct = list(results)
    for start in range(0, len(distinct), AT_ONCE):
        async with database.transaction() as tx:
            results |= await _cancel(tx, wish, distinct[start : start + AT_ONCE])
        notifier.notify(EVENTS, wish.user_id)
        notifier.notify(WEBHOOKS)
        notifier.notify(EMAILS)  # perhaps a digest: the last job under way may be among them
    return results


_lock = (
    select(
        jobs.c.id,
        jobs.c.user_id,
        jobs.c.status,
        jobs.c.cancelled_at,
        details_size,
    )
    .where(
        jobs.c.id.in_(bindparam("ids", expanding=True)),
        jobs.c.user_id == bindparam("user_id"),
        jobs.c.deleted_at.is_(None),
    )
    .order_by(jobs.c.id)  # all who lock several do so in this order
    .with_for_update()
)


async def _cancel(
    tx: AsyncConnection, wish: Wish, job_ids: list[int]
) -> Mapping[int, Cancellation]:
    values = {"ids": padded(job_ids), "user_id": wish.user_id}
    rows: Sequence[Any] = (await tx.execute(_lock, values)).all()
    results = {
        row.id: cancel(Status.of_row(row.status), is_cancelled=row.cancelled_at is not None)
        for row in rows
    }
    new = [
        row
        for row in rows
        if row.cancelled_at is None and results[row.id] is Cancellation.CANCELLED
    ]
    if new:
        await _drop_what_is_unsent(tx, [row.id for row in new])
        for row in new:
            await write_cancelled(tx, row, by=wish.by, reason=wish.reason, line=wish.line)
        await record_events(tx, [_event(row, wish) for row in new])
        for row in new:
            if overflows(row.details_size, wish.line):
                await cut_events(tx, row.id)
        await leave_out(tx, wish.user_id, [row.id for row in new])
        await write_digest(tx, wish.user_id)
    return results


async def _drop_what_is_unsent(tx: AsyncConnection, job_ids: list[int]) -> None:
    """Whatever its state: a claimed hand-over that goes out all the same is never sent again."""
    of_jobs: Any = bindparam("ids", padded(job_ids), expanding=True)
    await tx.execute(
        update(handovers)
        .where(handovers.c.job_id.in_(of_jobs), handovers.c.settled_at.is_(None))
        .values(
            **settlement(handovers, OutboxState.DROPPED),
            owner=None,
            leased_until=None,
            last_error="the job was cancelled",
        )
    )
    unsent = or_(state_is(emails, OutboxState.PENDING), state_is(emails, OutboxState.HELD))
    await tx.execute(delete(emails).where(emails.c.job_id.in_(of_jobs), unsent))


def _event(row: Row[Any], wish: Wish) -> NewEvent:
    return NewEvent(
        job_id=row.id,
        user_id=row.user_id,
        type=EventType.CANCEL,
        status=Status.ERROR,
        source=Source.USER,
        details=wish.line,
    )
