"""Jobs in the database: what users' requests read and write. Ownership is in every query."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, bindparam, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from common.database.engine import Database, padded, utc_now
from common.database.tables import handovers, job_events, jobs
from common.jobs.lifecycle import Source, Status
from common.outbox.item import OutboxState
from common.runtime.batching import Batcher
from gateway.http.errors import Conflict, NotThere
from gateway.jobs.rows import COLUMNS, job_as_json

_MAX_OFFSET: Final = 2**62

_GATHERING: Final = 0.01
"""Seconds between two transactions that write jobs: one costs as much as twenty more jobs in it,
and a gateway that is busy with small ones keeps the jobs waiting that would make them larger."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to write: the row, and the hand-over's payload made once its date is known."""

    row: dict[str, Any]
    payload: Callable[[datetime], str]


_page = (
    select(*COLUMNS)
    .where(jobs.c.user_id == bindparam("user_id"), jobs.c.deleted_at.is_(None))
    .order_by(jobs.c.date_created.desc().nulls_last(), jobs.c.id.desc())
    .limit(bindparam("page_limit", type_=BigInteger))
    .offset(bindparam("page_offset", type_=BigInteger))
)

_some = select(*COLUMNS).where(
    # SQLite finds pairs by their first column only if it is asked for by itself
    jobs.c.id.in_(bindparam("ids", expanding=True)),
    tuple_(jobs.c.id, jobs.c.user_id).in_(bindparam("keys", expanding=True)),
    jobs.c.deleted_at.is_(None),
)

_name_taken = select(jobs.c.id).where(
    jobs.c.user_id == bindparam("user_id"), jobs.c.job_name == bindparam("job_name")
)

_new_event = insert(job_events).values(
    status=Status.QUEUED, source=Source.USER, created_at=utc_now()
)

_new_handover = insert(handovers).values(
    state=OutboxState.PENDING, due_at=utc_now(), created_at=utc_now()
)


class JobStore:
    """Reads and writes jobs; concurrent single reads and inserts share round trips."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.find: Batcher[tuple[int, str], dict[str, Any]] = Batcher(self._find_batch)
        self.insert: Batcher[NewJob, tuple[int, datetime]] = Batcher(
            self._insert_batch, limit=50, pause=_GATHERING
        )
        dialect = sqlite if database.is_sqlite else postgresql
        self._new_job = (
            dialect.insert(jobs)
            .values(date_created=utc_now())
            .on_conflict_do_nothing(index_elements=[jobs.c.user_id, jobs.c.job_name])
            .returning(jobs.c.id, jobs.c.user_id, jobs.c.job_name, jobs.c.date_created)
        )

    async def page(self, user_id: str, *, offset: int, limit: int) -> list[dict[str, Any]]:
        """The user's jobs, newest first over the whole set."""
        values = {
            "user_id": user_id,
            "page_limit": limit,
            "page_offset": min(offset, _MAX_OFFSET),
        }
        async with self._database.reading() as connection:
            rows = (await connection.execute(_page, values)).all()
        return [job_as_json(row) for row in rows]

    async def is_name_taken(self, user_id: str, job_name: str) -> bool:
        values = {"user_id": user_id, "job_name": job_name}
        async with self._database.reading() as connection:
            return (await connection.execute(_name_taken, values)).first() is not None

    async def _find_batch(
        self, keys: Sequence[tuple[int, str]]
    ) -> list[dict[str, Any] | Exception]:
        wanted = padded(keys)
        values = {"keys": wanted, "ids": [job_id for job_id, _ in wanted]}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_some, values)).all()
        found = {(row.id, row.user_id): job_as_json(row) for row in rows}
        return [found.get(key) or NotThere("Job not found") for key in keys]

    async def _insert_batch(self, new: Sequence[NewJob]) -> list[tuple[int, datetime] | Exception]:
        """Job, event and hand-over of each in one transaction; a name that is taken is left out."""
        async with self._database.transaction() as tx:
            inserted = (await tx.execute(self._new_job, [job.row for job in new])).all()
            found = {(row.user_id, row.job_name): (row.id, row.date_created) for row in inserted}
            results: list[tuple[int, datetime] | Exception] = []
            events, handover_rows = [], []
            for job in new:
                key = (job.row["user_id"], job.row["job_name"])
                written = found.pop(key, None)
                if written is None:
                    results.append(Conflict("Job name must be unique"))
                    continue
                results.append(written)
                job_id, created = written
                events.append({"job_id": job_id})
                handover_rows.append(
                    {
                        "job_id": job_id,
                        "number": job_id,
                        "priority": job.row["priority"],
                        "correlation_id": job.row["correlation_id"],
                        "payload": job.payload(created),
                    }
                )
            if events:
                await tx.execute(_new_event, events)
                await tx.execute(_new_handover, handover_rows)
        return results
