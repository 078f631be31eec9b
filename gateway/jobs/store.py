"""Jobs in the database: the statements behind users' requests. Ownership is in every query.

`_COLUMNS` declares a job as clients read it, one column per key; `JobSchema` documents it. Rows go
to `orjson.dumps` as they are, with JSON columns passed through as text.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import starmap
from typing import Any, Final

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Text,
    bindparam,
    cast,
    func,
    insert,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeDecorator

from common.database.engine import Database, padded, utc_now
from common.database.tables import handovers, jobs
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Source, Status
from common.jobs.quota import count_unfinished, lock_counts
from common.outbox.item import OutboxState
from common.runtime.batching import Batcher
from gateway.http.responses import iso
from gateway.jobs.errors import JobNotFound, NameTaken, TooManyUnfinished
from gateway.jobs.schemas import HARDWARE_KEYS
from gateway.jobs.turns import next_turn

_MAX_OFFSET: Final = 2**62

_INSERT_PAUSE: Final = 0.01
"""Minimum seconds between two insert transactions: a commit costs as much as 20 more rows, so a
short pause makes batches larger."""

Job = dict[str, Any]
"""A job as clients read it, for `orjson.dumps`."""

Convert = Callable[[Any], Any]


# -- columns --------------------------------------------------------------------------------------


class _RawJson(TypeDecorator[Any]):
    """JSON text, passed through unparsed."""

    impl = Text
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:  # noqa: ARG002
        return orjson.Fragment


class _Hardware(_RawJson):
    """JSON text, completed to all of `HARDWARE_KEYS`."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:  # noqa: ARG002
        return _complete_hardware


class _Date(TypeDecorator[Any]):
    """A date; as text if orjson would write it without microseconds, since they are zero."""

    impl = DateTime
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:
        parse = super().result_processor(dialect, coltype)
        return _with_microseconds if parse is None else lambda v: _with_microseconds(parse(v))


@lru_cache(maxsize=4_096)  # most rows have the same
def _complete_hardware(text: str | None) -> orjson.Fragment:
    try:
        found = orjson.loads(text or "null")
    except orjson.JSONDecodeError:  # an adopted row; SQLite accepts anything
        found = None
    stored = found if isinstance(found, dict) else {}
    return orjson.Fragment(orjson.dumps({key: stored.get(key) for key in HARDWARE_KEYS}))


def _with_microseconds(date: datetime | None) -> datetime | str | None:
    return date if date is None or date.microsecond else iso(date)


def _text_of(column: Column[Any], kind: type[TypeDecorator[Any]]) -> ColumnElement[Any]:
    return type_coerce(cast(column, Text), kind).label(column.name)


def _date(column: Column[Any]) -> ColumnElement[Any]:
    return type_coerce(column, _Date).label(column.name)


_COLUMNS: Final[tuple[ColumnElement[Any], ...]] = (
    jobs.c.job_name,
    func.nullif(cast(jobs.c.environment, Text), "any").label("environment"),
    jobs.c.priority,
    _text_of(jobs.c.application, _RawJson),
    _text_of(jobs.c.attributes, _RawJson),
    _text_of(jobs.c.hardware, _Hardware),
    jobs.c.id,
    jobs.c.user_id,
    jobs.c.user_email,
    _date(jobs.c.date_created),
    _date(jobs.c.date_started),
    _date(jobs.c.date_finished),
    jobs.c.status,
    jobs.c.runtime_details,
    _text_of(jobs.c.paths_out, _RawJson),
)


JOB_KEYS: Final = tuple(str(column.name) for column in _COLUMNS)


def _dict_maker(names: Sequence[str]) -> Callable[..., Job]:
    """A function from the values of columns with these names to a dict.

    It is compiled from a dict literal, which takes half the time of `dict(zip(names, row))`.
    """
    pairs = ", ".join(f"{name!r}: {name}" for name in names)
    return eval(f"lambda {', '.join(names)}: {{{pairs}}}")  # type: ignore[no-any-return] # noqa: S307


_make_job: Final = _dict_maker(JOB_KEYS)


def _as_jobs(rows: Iterable[Sequence[Any]]) -> list[Job]:
    return list(starmap(_make_job, rows))


# -- statements -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert: its row, and the hand-over's payload, which holds the job's date."""

    row: dict[str, Any]
    payload: Callable[[datetime | str], str]


_page = (
    select(*_COLUMNS)
    .where(jobs.c.user_id == bindparam("user_id"), jobs.c.deleted_at.is_(None))
    .order_by(jobs.c.date_created.desc().nulls_last(), jobs.c.id.desc())
    .limit(bindparam("page_limit", type_=BigInteger))
    .offset(bindparam("page_offset", type_=BigInteger))
)

_some = select(*_COLUMNS).where(
    # SQLite uses the primary key only for a condition on the id alone
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    tuple_(jobs.c.id, jobs.c.user_id).in_(bindparam("keys", expanding=True)),
    jobs.c.deleted_at.is_(None),
)

_name_taken = select(jobs.c.id).where(
    jobs.c.user_id == bindparam("user_id"), jobs.c.job_name == bindparam("job_name")
)


def _submitted(job: Job) -> NewEvent:
    return NewEvent(
        job_id=job["id"],
        user_id=job["user_id"],
        type=EventType.STATUS,
        status=Status.QUEUED,
        source=Source.USER,
    )


class JobStore:
    """Reads and inserts jobs; concurrent calls of `find` and of `insert` share round trips."""

    def __init__(self, database: Database, *, unfinished: int = 0) -> None:
        """`unfinished`: how many jobs that have not ended a user may have (0: any number)."""
        self._database = database
        self._unfinished = unfinished
        self.find: Batcher[tuple[int, str], Job] = Batcher(self._find_batch)
        self.insert: Batcher[NewJob, Job] = Batcher(
            self._insert_batch, limit=50, pause=_INSERT_PAUSE
        )
        dialect = sqlite if database.is_sqlite else postgresql
        self._new_job = (
            dialect.insert(jobs)
            .values(date_created=utc_now())
            .on_conflict_do_nothing(index_elements=[jobs.c.user_id, jobs.c.job_name])
            .returning(*_COLUMNS)
        )
        self._new_handover = insert(handovers).values(
            state=OutboxState.PENDING,
            due_at=utc_now(),
            created_at=utc_now(),
            turn=next_turn(is_sqlite=database.is_sqlite),
        )

    async def page(self, user_id: str, *, offset: int, limit: int) -> list[Job]:
        """The user's jobs, newest first."""
        values = {
            "user_id": user_id,
            "page_limit": limit,
            "page_offset": min(offset, _MAX_OFFSET),
        }
        async with self._database.reading() as connection:
            rows = (await connection.execute(_page, values)).all()
        return _as_jobs(rows)

    async def is_name_taken(self, user_id: str, job_name: str) -> bool:
        values = {"user_id": user_id, "job_name": job_name}
        async with self._database.reading() as connection:
            return (await connection.execute(_name_taken, values)).first() is not None

    async def _find_batch(self, keys: Sequence[tuple[int, str]]) -> list[Job | Exception]:
        """Jobs by id and user; `JobNotFound` for a key without one."""
        wanted = padded(keys)
        values = {"keys": wanted, "ids": [job_id for job_id, _ in wanted]}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_some, values)).all()
        found = {(job["id"], job["user_id"]): job for job in _as_jobs(rows)}
        return [found.get(key) or JobNotFound() for key in keys]

    async def _insert_batch(self, new: Sequence[NewJob]) -> list[Job | Exception]:
        """Insert each job with its event and hand-over, all in one transaction.

        `NameTaken` for a job whose name the user has used, also within the batch;
        `TooManyUnfinished` for one beyond the user's limit, which no race exceeds.
        """
        async with self._database.transaction() as tx:
            refused = await self._over_limit(tx, new) if self._unfinished else set()
            admitted = [job.row for job in new if id(job) not in refused]
            rows = (await tx.execute(self._new_job, admitted)).all() if admitted else []
            inserted = {(job["user_id"], job["job_name"]): job for job in _as_jobs(rows)}
            results: list[Job | Exception] = []
            events, handover_rows = [], []
            for item in new:
                if id(item) in refused:
                    results.append(TooManyUnfinished(self._unfinished))
                    continue
                job = inserted.pop((item.row["user_id"], item.row["job_name"]), None)
                if job is None:
                    results.append(NameTaken())
                    continue
                results.append(job)
                events.append(_submitted(job))
                handover_rows.append(
                    {
                        "job_id": job["id"],
                        "number": job["id"],
                        "user_id": job["user_id"],
                        "of_user": job["user_id"],
                        "priority": item.row["priority"],
                        "of_priority": item.row["priority"],
                        "correlation_id": item.row["correlation_id"],
                        "payload": item.payload(job["date_created"]),
                    }
                )
            if events:
                await tx.execute(self._new_handover, handover_rows)
                await record_events(tx, events)
        return results

    async def _over_limit(self, tx: AsyncConnection, new: Sequence[NewJob]) -> set[int]:
        """Which (by `id()`) of these jobs are beyond their users' limits, in order of arrival."""
        users = {job.row["user_id"] for job in new}
        await lock_counts(tx, users)
        left = {user: self._unfinished - await count_unfinished(tx, user) for user in users}
        refused = set()
        for job in new:
            left[job.row["user_id"]] -= 1
            if left[job.row["user_id"]] < 0:
                refused.add(id(job))
        return refused

    async def check_unfinished(self, user_id: str) -> None:
        """Raise `TooManyUnfinished` for a user who has reached the limit, before more is done."""
        if self._unfinished:
            async with self._database.reading() as connection:
                if await count_unfinished(connection, user_id) >= self._unfinished:
                    raise TooManyUnfinished(self._unfinished)
