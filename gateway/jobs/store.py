"""Jobs in the database: the statements behind users' requests. Ownership is in every query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    Row,
    Text,
    bindparam,
    cast,
    func,
    insert,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, byte_length, padded, utc_now
from common.database.tables import MAX_JOB_ID, handovers, jobs
from common.jobs.answer import COLUMNS, Job, as_jobs
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Source, Status
from common.jobs.quota import count_unfinished, lock_counts
from common.outbox.item import OutboxState
from common.runtime.batching import Batcher
from gateway.jobs.columns import SHORT_COLUMNS
from gateway.jobs.errors import JobNotFound, NameTaken, TooManyUnfinished
from gateway.jobs.turns import next_turn

_MAX_OFFSET: Final = 2**62

_INSERT_PAUSE: Final = 0.01
"""Minimum seconds between two insert transactions: a commit costs as much as 20 more rows, so a
short pause makes batches larger."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert: its row, and the hand-over's payload, which holds the job's date."""

    row: dict[str, Any]
    payload: Callable[[datetime | str], str]


_newest_first = (jobs.c.date_created.desc().nulls_last(), jobs.c.id.desc())
_of_user = (jobs.c.user_id == bindparam("user_id"), jobs.c.deleted_at.is_(None))
_few = select(*SHORT_COLUMNS).where(*_of_user).order_by(*_newest_first)
_few = _few.limit(bindparam("page_limit", type_=BigInteger))

_page = _few.offset(bindparam("page_offset", type_=BigInteger))
_older = _few.where(
    tuple_(jobs.c.date_created, jobs.c.id)
    < tuple_(bindparam("date", type_=DateTime), bindparam("id", type_=Integer))
)
_undated = _few.where(jobs.c.date_created.is_(None), jobs.c.id < bindparam("id", type_=Integer))

_some = select(*SHORT_COLUMNS).where(
    # SQLite uses the primary key only for a condition on the id alone
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    tuple_(jobs.c.id, jobs.c.user_id).in_(bindparam("keys", expanding=True)),
    jobs.c.deleted_at.is_(None),
)

_one = select(*COLUMNS).where(*_of_user, jobs.c.id == bindparam("id"))
_size = select(
    func.coalesce(byte_length(jobs.c.runtime_details), 0)
    + byte_length(cast(jobs.c.attributes, Text))
    + func.coalesce(byte_length(cast(jobs.c.hardware, Text)), 0)
).where(jobs.c.id == bindparam("id"))

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
            .returning(*COLUMNS)
        )
        self._new_handover = insert(handovers).values(
            state=OutboxState.PENDING,
            due_at=utc_now(),
            created_at=utc_now(),
            turn=next_turn(is_sqlite=database.is_sqlite),
        )

    async def page(self, user_id: str, *, offset: int, limit: int) -> list[Job]:
        """The user's jobs, newest first; those for which `is_long` holds without their texts."""
        values = {
            "user_id": user_id,
            "page_limit": limit,
            "page_offset": min(offset, _MAX_OFFSET),
        }
        async with self._database.reading() as connection:
            rows = (await connection.execute(_page, values)).all()
        return as_jobs(rows)

    async def page_after(self, user_id: str, last: Job, limit: int) -> list[Job]:
        """Up to `limit` jobs behind `last`, as in `page`, whatever has come or gone before it."""
        date, values = last["date_created"], {"user_id": user_id, "page_limit": limit}
        rows: list[Row[Any]] = []
        async with self._database.reading() as connection:
            if date is not None:
                date = datetime.fromisoformat(date) if isinstance(date, str) else date
                values |= {"date": date, "id": last["id"]}
                rows += (await connection.execute(_older, values)).all()
                values |= {"page_limit": limit - len(rows), "id": MAX_JOB_ID}
            else:
                values |= {"id": last["id"]}
            if values["page_limit"]:
                rows += (await connection.execute(_undated, values)).all()
        return as_jobs(rows)

    async def size_of(self, job_id: int) -> int:
        """Bytes of a job's texts; 0 if it is gone."""
        async with self._database.reading() as connection:
            return int((await connection.execute(_size, {"id": job_id})).scalar() or 0)

    async def find_long(self, user_id: str, job_id: int) -> Job:
        """One job with all its texts. Raises `JobNotFound`."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_one, {"user_id": user_id, "id": job_id})).all()
        if not rows:
            raise JobNotFound
        return as_jobs(rows)[0]

    async def is_name_taken(self, user_id: str, job_name: str) -> bool:
        values = {"user_id": user_id, "job_name": job_name}
        async with self._database.reading() as connection:
            return (await connection.execute(_name_taken, values)).first() is not None

    async def _find_batch(self, keys: Sequence[tuple[int, str]]) -> list[Job | Exception]:
        """Jobs by id and user, as in `page`; `JobNotFound` for a key without one."""
        wanted = padded(keys)
        values = {"keys": wanted, "ids": [job_id for job_id, _ in wanted]}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_some, values)).all()
        found = {(job["id"], job["user_id"]): job for job in as_jobs(rows)}
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
            inserted = {(job["user_id"], job["job_name"]): job for job in as_jobs(rows)}
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
