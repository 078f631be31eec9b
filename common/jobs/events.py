"""A job's events: what happened to it, in the order in which it took effect.

Ids are cursors: a user's events become visible in the order of their ids, although transactions
commit in any order. Each takes its user's lock before it takes ids, and keeps it until it has
committed (ADR 14). So the rows of jobs are locked first, and events are written last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Insert,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import job_deletions, job_events, job_labels
from common.jobs.lifecycle import Source, Status
from common.jobs.webhooks import JobChange, has_webhooks, write_messages


class EventType(StrEnum):
    """What kind of change an event records."""

    STATUS = "status"
    """The status changed, or the job was submitted."""

    DETAILS = "details"
    """Text came without a change of the status."""

    CANCEL = "cancel"
    """The user cancelled the job."""

    CANCELLED = "cancelled"
    """A worker of the cancelled job was told to stop."""

    REPORTED = "reported"
    """A worker reported something that changed nothing; only operators see it."""

    DELETED = "deleted"
    """The user deleted the job; only operators see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to record; `status` is the job's after the event, `reported` what was reported."""

    job_id: int
    user_id: str
    type: EventType
    status: Status
    source: Source
    details: str | None = None
    reported: Status | None = None


async def record_events(tx: AsyncConnection, events: Sequence[NewEvent]) -> bool:
    """Add events; no other row of `jobs` may be locked by this transaction afterwards.

    Returns whether messages to webhooks were written, which are announced after the commit.
    """
    rows = [
        {
            "user_lock": _lock_key(event.user_id),
            "job_id": event.job_id,
            "user_id": event.user_id,
            "type": event.type,
            "status": event.reported or event.status,
            "job_status": event.status,
            "details": event.details,
            "source": event.source,
        }
        for event in events
    ]
    changes = [
        JobChange(event.job_id, event.user_id, _names(event))
        for event in events
        if event.type in {EventType.STATUS, EventType.CANCEL}
    ]
    are_heard = await _insert_in_order(tx, job_events, rows)
    return bool(changes) and are_heard and await write_messages(tx, changes)


def _names(event: NewEvent) -> tuple[str, ...]:
    """The change as webhooks name it."""
    if event.type is EventType.CANCEL:
        return "status", "cancelled"
    return ("status", event.status.value) if event.status.is_final else ("status",)


labels_of_jobs: Final = select(job_labels.c.job_id, job_labels.c.key, job_labels.c.value).where(
    job_labels.c.job_id.in_(bindparam("job_ids", expanding=True))
)


async def record_deletion(tx: AsyncConnection, user_id: str, job_id: int) -> None:
    """Announce that a job is deleted; otherwise as `record_events`."""
    labels = {row.key: row.value for row in await tx.execute(labels_of_jobs, {"job_ids": [job_id]})}
    row = {
        "user_lock": _lock_key(user_id),
        "job_id": job_id,
        "user_id": user_id,
        "labels": labels,
    }
    await _insert_in_order(tx, job_deletions, [row])


async def lock_user(tx: AsyncConnection, user_id: str) -> None:
    """Take the lock of the user's events: nothing of the user's begins or ends meanwhile."""
    if tx.dialect.name != "sqlite":  # its writers are alone
        await tx.execute(_lock_user, {"user_lock": _lock_key(user_id)})


_lock_user = select(func.pg_advisory_xact_lock(bindparam("user_lock", type_=BigInteger)))


def _lock_key(user_id: str) -> int:
    digest = blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"job events")
    return int.from_bytes(digest.digest(), signed=True)


_is_heard: Final = has_webhooks(bindparam("user_id", type_=String))
"""Asked for with the insert, since a round trip more would be felt by users without webhooks."""

_inserts: Final[dict[tuple[str, str, bool], Any]] = {}


async def _insert_in_order(
    tx: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]
) -> bool:
    """Insert under the users' locks, taken in one order by all, so that nobody deadlocks.

    Returns whether a user has webhooks; for several rows, whether one may have.
    """
    rows = sorted(rows, key=lambda row: row["user_lock"])
    if tx.dialect.name == "sqlite":  # its writers are alone
        rows = [{key: row[key] for key in row if key != "user_lock"} for row in rows]
    is_one = len(rows) == 1
    key = (table.name, tx.dialect.name, is_one)
    if key not in _inserts:
        statement = _insert(table, rows[0], locks=tx.dialect.name != "sqlite")
        _inserts[key] = statement.returning(_is_heard) if is_one else statement
    if is_one:
        return bool((await tx.execute(_inserts[key], rows[0])).scalar_one())
    await tx.execute(_inserts[key], rows)
    return True


def _insert(table: Table, row: Iterable[str], *, locks: bool) -> Insert:
    names = [name for name in row if name != "user_lock"]
    values = [bindparam(name, type_=table.c[name].type).label(name) for name in names]
    source = select(*values, utc_now().label("created_at"))
    if locks:
        # a materialised CTE is scanned, and so the lock taken, before the row gets its id
        lock = func.pg_advisory_xact_lock(bindparam("user_lock", type_=BigInteger))
        source = source.select_from(select(lock).cte("locked").prefix_with("MATERIALIZED"))
    return insert(table).from_select([*names, "created_at"], source, include_defaults=False)


async def prune_deletions(database: Database, age: float, limit: int) -> int:
    """Delete up to `limit` deletions that are older than `age` seconds; returns how many."""
    old = (
        select(job_deletions.c.id)
        .where(job_deletions.c.created_at < utc_now(-age))
        .order_by(job_deletions.c.created_at)
        .limit(limit)
    )
    async with database.transaction() as tx:
        pruned = await tx.execute(delete(job_deletions).where(job_deletions.c.id.in_(old)))
    return pruned.rowcount
