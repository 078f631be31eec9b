"""Pages of users' events and deletions, as users see them, later than a cursor (see `events`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    String,
    Text,
    bindparam,
    case,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import padded, utc_now
from common.database.tables import job_deletions, job_events, jobs
from common.jobs.events import EventType, labels_of_jobs

PAGE: Final = 500
"""Events of one user that `read_later` reads at most."""

PAGE_LENGTH: Final = 131_072
"""Characters of details after which `read_later` reads no further event of a user."""


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


async def read_labels(
    connection: AsyncConnection, events: Iterable[Event]
) -> dict[int, dict[str, str]]:
    """The labels of the events' jobs, by job."""
    found: dict[int, dict[str, str]] = {event.job_id: {} for event in events}
    if found:
        for row in await connection.execute(labels_of_jobs, {"job_ids": padded([*found])}):
            found[row.job_id][row.key] = row.value
    return found


async def read_clock(connection: AsyncConnection) -> datetime:
    """The database's time, for the age of an event."""
    now: datetime = (await connection.execute(select(utc_now().label("now")))).scalar_one()
    return now


def is_full(page: Sequence[Event]) -> bool:
    """Whether a user's page from `read_later` may have been cut."""
    return len(page) >= PAGE or sum(len(event.details or "") for event in page) >= PAGE_LENGTH
