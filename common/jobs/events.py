"""A job's events: what happened to it, in the order in which it took effect.

Ids are cursors: a user's events become visible in the order of their ids, although transactions
commit in any order. Each takes its user's lock before it takes ids, and keeps it until it has
committed (ADR 14). So the rows of jobs are locked first, and events are written last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Insert,
    Integer,
    Select,
    String,
    Table,
    Text,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded, utc_now
from common.database.tables import job_deletions, job_events, job_labels, jobs
from common.jobs.lifecycle import Source, Status
from common.jobs.webhooks import JobChange, has_webhooks, write_messages

PAGE: Final = 500
"""Events of one user that `read_later` reads at most."""

PAGE_LENGTH: Final = 131_072
"""Characters of details after which `read_later` reads no further event of a user."""


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


@dataclass(frozen=True, slots=True)
class Event:
    """An event as users see it; `date` is UTC."""

    id: int
    job_id: int
    job_name: str | None
    type: str
    status: str
    details: str | None
    source: str
    date: datetime
    user_id: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """The deletion of a job; `id` is a cursor of its own."""

    id: int
    job_id: int
    user_id: str
    labels: Mapping[str, str] | None
    """What the job's labels were; None where an earlier version of the service deleted it."""


# -- writing --------------------------------------------------------------------------------------


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


async def record_deletion(tx: AsyncConnection, user_id: str, job_id: int) -> None:
    """Announce that a job is deleted; otherwise as `record_events`."""
    labels = {row.key: row.value for row in await tx.execute(_labels, {"job_ids": [job_id]})}
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


# -- reading --------------------------------------------------------------------------------------


def _type() -> ColumnElement[str]:
    """The type, worked out for events of versions that did not write it."""
    before = job_events.alias("before")
    status_before = (
        select(before.c.status)
        .where(before.c.job_id == job_events.c.job_id, before.c.id < job_events.c.id)
        .order_by(before.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    changed = status_before.is_distinct_from(job_events.c.status)
    worked_out = case(
        (changed, literal(EventType.STATUS, String)),
        (job_events.c.details.is_(None), literal(EventType.REPORTED, String)),
        else_=literal(EventType.DETAILS, String),
    )
    return func.coalesce(job_events.c.type, worked_out)


_EVENT: Final = (
    job_events.c.id,
    job_events.c.job_id,
    jobs.c.job_name,
    _type().label("type"),
    func.coalesce(job_events.c.job_status, job_events.c.status).label("status"),
    job_events.c.details,
    job_events.c.source,
    job_events.c.created_at.label("date"),
    jobs.c.user_id,
)

_visible_events = (
    select(*_EVENT)
    .join_from(job_events, jobs, jobs.c.id == job_events.c.job_id)
    .where(jobs.c.deleted_at.is_(None))
    .where(_type().not_in([EventType.REPORTED, EventType.DELETED]))
)

_of_job = (
    _visible_events.where(
        job_events.c.job_id == bindparam("of_job", type_=Integer),
        job_events.c.id > bindparam("after", type_=BigInteger),
    )
    .order_by(job_events.c.id)
    .limit(bindparam("at_most", type_=Integer))
)


async def read_of_job(
    connection: AsyncConnection, job_id: int, *, after: int, limit: int
) -> list[Event]:
    """A job's events later than `after`, oldest first; none if it is deleted."""
    values = {"of_job": job_id, "after": after, "at_most": limit}
    return [Event(*row) for row in await connection.execute(_of_job, values)]


def _later(user: ColumnElement[str], after: ColumnElement[int]) -> Select[Any]:
    """A page of one user's events; `length` is that of the details of those before each."""
    length = func.coalesce(func.length(job_events.c.details), 0)
    before = func.sum(length).over(order_by=job_events.c.id) - length
    return (
        _visible_events.add_columns(before.label("length"))
        .where(job_events.c.user_id == user, job_events.c.id > after)
        .order_by(job_events.c.id)
        .limit(PAGE)
    )


def _later_deletions(user: ColumnElement[str], after: ColumnElement[int]) -> Select[Any]:
    table = job_deletions.c
    return (
        select(table.id, table.job_id, table.user_id, table.labels)
        .where(table.user_id == user, table.id > after)
        .order_by(table.id)
        .limit(PAGE)
    )


def _of_one(page: Any) -> Any:
    return page(bindparam("of_user", type_=String), bindparam("after", type_=BigInteger))


def _of_many(page: Any) -> Any:
    """PostgreSQL: one page of each of many users, in one statement."""
    users = bindparam("users", type_=ARRAY(Text))
    afters = bindparam("afters", type_=ARRAY(BigInteger))
    unnested = func.unnest(users, afters).table_valued("of_user", "after", name="positions")
    positions = unnested.render_derived()
    return page(positions.c.of_user, positions.c.after).lateral("page"), positions


def _statements(page: Any, *, has_length: bool) -> tuple[Any, Any]:
    """The statement for one user, and that for many."""
    one = _of_one(page).subquery()
    lateral, positions = _of_many(page)
    many = select(lateral).select_from(positions.join(lateral, true())).order_by(lateral.c.id)
    single = select(one).order_by(one.c.id)
    if has_length:
        single = single.where(one.c.length < PAGE_LENGTH)
        many = many.where(lateral.c.length < PAGE_LENGTH)
    return single, many


_later_events_of = _statements(_later, has_length=True)
_later_deletions_of = _statements(_later_deletions, has_length=False)


async def read_later(
    connection: AsyncConnection, positions: Mapping[str, int]
) -> dict[str, list[Event]]:
    """For each user, the next events after a position, in order: a page of them.

    A page that is not empty may be followed by another one.
    """
    rows = await _read(connection, _later_events_of, positions)
    width = len(fields(Event))
    found: dict[str, list[Event]] = {user: [] for user in positions}
    for row in rows:
        event = Event(*row[:width])
        found[event.user_id].append(event)
    return found


async def read_deletions(
    connection: AsyncConnection, positions: Mapping[str, int]
) -> dict[str, list[Deletion]]:
    """For each user, the next deletions after a position; otherwise as `read_later`."""
    found: dict[str, list[Deletion]] = {user: [] for user in positions}
    for row in await _read(connection, _later_deletions_of, positions):
        found[row.user_id].append(Deletion(*row))
    return found


async def _read(
    connection: AsyncConnection, statements: tuple[Any, Any], positions: Mapping[str, int]
) -> list[Any]:
    one, many = statements
    if connection.dialect.name != "sqlite":
        values = {"users": list(positions), "afters": list(positions.values())}
        return list(await connection.execute(many, values))
    rows: list[Any] = []
    for user, after in positions.items():
        rows += await connection.execute(one, {"of_user": user, "after": after})
    return rows


_labels = select(job_labels.c.job_id, job_labels.c.key, job_labels.c.value).where(
    job_labels.c.job_id.in_(bindparam("job_ids", expanding=True))
)


async def newest(connection: AsyncConnection, user_id: str) -> tuple[int, int]:
    """The ids of a user's newest event and newest deletion; 0 where there is none."""
    ids = [
        select(func.max(table.c.id)).where(table.c.user_id == user_id).scalar_subquery()
        for table in (job_events, job_deletions)
    ]
    event, deletion = (await connection.execute(select(*ids))).one()
    return event or 0, deletion or 0


async def newest_of_all(connection: AsyncConnection) -> tuple[int, int]:
    """`newest` over all users; unchanged where nothing was written meanwhile, on SQLite."""
    ids = [select(func.max(table.c.id)).scalar_subquery() for table in (job_events, job_deletions)]
    event, deletion = (await connection.execute(select(*ids))).one()
    return event or 0, deletion or 0


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


async def read_labels(
    connection: AsyncConnection, events: Iterable[Event]
) -> dict[int, dict[str, str]]:
    """The labels of the events' jobs, by job."""
    found: dict[int, dict[str, str]] = {event.job_id: {} for event in events}
    if found:
        for row in await connection.execute(_labels, {"job_ids": padded([*found])}):
            found[row.job_id][row.key] = row.value
    return found


async def read_clock(connection: AsyncConnection) -> datetime:
    """The database's time, for the age of an event."""
    now: datetime = (await connection.execute(select(utc_now().label("now")))).scalar_one()
    return now


def is_full(page: Sequence[Event]) -> bool:
    """Whether a user's page from `read_later` may have been cut."""
    return len(page) >= PAGE or sum(len(event.details or "") for event in page) >= PAGE_LENGTH
