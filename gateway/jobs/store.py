"""Jobs in the database: the statements behind users' requests. Ownership is in every query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    Row,
    Text,
    bindparam,
    cast,
    func,
    select,
    tuple_,
)

from common.database.engine import Database, byte_length, padded
from common.database.tables import MAX_JOB_ID, job_labels, jobs
from common.jobs.answer import COLUMNS, Job, as_jobs
from common.runtime.batching import Batcher
from gateway.jobs.columns import SHORT_COLUMNS
from gateway.jobs.details import with_details
from gateway.jobs.errors import JobNotFound
from gateway.jobs.labels import add_labels, label_rows, remove_labels

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

_labelled = (
    select(jobs.c.id, jobs.c.user_id, jobs.c.date_created)
    .where(*_of_user, jobs.c.id == bindparam("id"))
    .with_for_update()
)

_names_taken = select(jobs.c.job_name).where(
    jobs.c.user_id == bindparam("user_id"), jobs.c.job_name.in_(bindparam("names", expanding=True))
)

_labels = select(job_labels.c.key, job_labels.c.value).where(
    job_labels.c.job_id == bindparam("job_id")
)


class JobStore:
    """Reads jobs; concurrent calls of `find` share round trips."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.find: Batcher[tuple[int, str], Job] = Batcher(self._find_batch)

    async def page(self, user_id: str, *, offset: int, limit: int) -> list[Job]:
        """The user's jobs, newest first; those for which `is_long` holds without their texts."""
        values = {
            "user_id": user_id,
            "page_limit": limit,
            "page_offset": offset,
        }
        async with self._database.reading() as connection:
            rows = (await connection.execute(_page, values)).all()
        return as_jobs(rows)

    async def with_details(self, job: Job) -> Job:
        """A job with its details. Raises `JobNotFound`."""
        async with self._database.reading() as connection:
            found = await with_details(connection, [job])
        if not found:
            raise JobNotFound
        return found[0]

    async def replace_labels(self, user_id: str, job_id: int, labels: Mapping[str, str]) -> None:
        """Replace a job's labels. Raises `JobNotFound`."""
        async with self._database.transaction() as tx:
            values = {"user_id": user_id, "id": job_id}
            job = (await tx.execute(_labelled, values)).mappings().one_or_none()
            if job is None:
                raise JobNotFound
            await tx.execute(remove_labels, {"of_job": job_id})
            if rows := label_rows(job, job["date_created"], labels):
                await tx.execute(add_labels, rows)

    async def page_after(
        self, user_id: str, date: datetime | None, job_id: int, limit: int
    ) -> list[Job]:
        """Up to `limit` jobs behind one of that date and id, as in `page`."""
        values = {"user_id": user_id, "page_limit": limit, "id": job_id}
        rows: list[Row[Any]] = []
        async with self._database.reading() as connection:
            if date is not None:
                rows += (await connection.execute(_older, {**values, "date": date})).all()
                values |= {"page_limit": limit - len(rows), "id": MAX_JOB_ID}
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

    async def names_taken(self, user_id: str, names: Sequence[str]) -> set[str]:
        """Those of the names that jobs of the user have, deleted ones included until they are
        gone."""
        values = {"user_id": user_id, "names": padded(names)}
        async with self._database.reading() as connection:
            return set(await connection.scalars(_names_taken, values))

    async def chosen_of(self, job_id: int) -> dict[str, Any]:
        """What a submission has beyond the keys of a job: `labels` and `notify`."""
        async with self._database.reading() as connection:
            rows = (await connection.execute(_labels, {"job_id": job_id})).all()
            notify = select(jobs.c.notify).where(jobs.c.id == job_id)
            chosen = (await connection.execute(notify)).scalar_one_or_none()
        return {"labels": {row.key: row.value for row in rows}, "notify": chosen}

    async def _find_batch(self, keys: Sequence[tuple[int, str]]) -> list[Job | Exception]:
        """Jobs by id and user, as in `page`; `JobNotFound` for a key without one."""
        wanted = padded(keys)
        values = {"keys": wanted, "ids": [job_id for job_id, _ in wanted]}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_some, values)).all()
        found = {(job["id"], job["user_id"]): job for job in as_jobs(rows)}
        return [found.get(key) or JobNotFound() for key in keys]
