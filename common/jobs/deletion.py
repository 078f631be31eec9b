"""Deletion of a job in steps that may be interrupted: mark it, remove its files, remove its row.

Once marked, the job is gone for everyone. The process that removes the files holds a lease (the
time of the mark, renewed during the work). Without it, the slower of two processes could remove the
files of a new job of the same name, which can be created as soon as the row is gone.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.notify import EVENTS, ChannelNotifier
from common.database.tables import emails, handovers, jobs
from common.jobs.digest import leave_out, write_digest
from common.jobs.events import EventType, NewEvent, record_deletion, record_events
from common.jobs.lifecycle import Source, Status
from common.jobs.results import result_directories
from common.outbox.item import OutboxState
from common.runtime.tasks import in_background
from common.storage.paths import UserPath
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from common.usage.records import Change, mark_active, record_changes

LEASE: Final = 5.0
"""Seconds after its last renewal at which a deletion counts as interrupted."""

_RENEW_EVERY: Final = 1.0
_ASK_AGAIN: Final = 0.25

log = get_logger()


@dataclass(frozen=True, slots=True)
class Marked:
    """A job marked as deleted; `is_ours` if the caller holds the lease and has to finish."""

    job_id: int
    user_id: str
    paths_out: Any
    is_ours: bool


async def delete_job(
    database: Database, notifier: ChannelNotifier, storage: Storage, user_id: str, job_id: int
) -> bool:
    """Delete a user's job with its files; False if there is none.

    Waits for another process that is deleting it, and finishes the deletion if that is interrupted.
    """
    found = False
    while True:
        async with database.transaction() as tx:
            marked = await mark_deleted(tx, user_id, job_id)
        if marked is None:
            return found
        notifier.notify(EVENTS, user_id)
        if marked.is_ours:
            await finish_deletion(database, storage, marked)
            return True
        found = True
        await asyncio.sleep(_ASK_AGAIN)


async def mark_deleted(tx: AsyncConnection, user_id: str, job_id: int) -> Marked | None:
    """Mark a user's job, drop its hand-over and unsent mails; None if there is no such job."""
    job = (
        await tx.execute(
            select(
                jobs.c.id,
                jobs.c.user_id,
                jobs.c.status,
                jobs.c.paths_out,
                jobs.c.deleted_at,
                (jobs.c.deleted_at >= utc_now(-LEASE)).label("is_leased"),
            )
            .where(jobs.c.id == job_id, jobs.c.user_id == user_id)
            .with_for_update()
        )
    ).one_or_none()
    if job is None:
        return None
    if not job.is_leased:
        await tx.execute(update(jobs).where(jobs.c.id == job_id).values(deleted_at=utc_now()))
    if job.deleted_at is None:
        await _drop_what_is_unsent(tx, job)
    return Marked(job.id, job.user_id, job.paths_out, is_ours=not job.is_leased)


async def _drop_what_is_unsent(tx: AsyncConnection, job: Row[Any]) -> None:
    await tx.execute(delete(handovers).where(handovers.c.job_id == job.id))
    await tx.execute(
        delete(emails).where(emails.c.job_id == job.id, emails.c.state != OutboxState.DONE)
    )
    event = NewEvent(
        job_id=job.id,
        user_id=job.user_id,
        type=EventType.DELETED,
        status=Status.of_row(job.status),
        details="deleted",
        source=Source.USER,
    )
    await record_events(tx, [event])
    await record_deletion(tx, job.user_id, job.id)
    await leave_out(tx, job.user_id, [job.id])
    await write_digest(tx, job.user_id)  # no other job may be under way


async def take_over_interrupted(database: Database, *, age: float, limit: int) -> list[Marked]:
    """Take over up to `limit` deletions not renewed for `age` seconds.

    This renews them, so that one that keeps failing does not block the others.
    """
    interrupted = (
        select(jobs.c.id)
        .where(jobs.c.deleted_at < utc_now(-age))
        .order_by(jobs.c.deleted_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    async with database.transaction() as tx:
        taken = await tx.execute(
            update(jobs)
            .where(jobs.c.id.in_(interrupted))
            .values(deleted_at=utc_now())
            .returning(jobs.c.id, jobs.c.user_id, jobs.c.paths_out)
        )
        rows = taken.all()
    return [Marked(row.id, row.user_id, row.paths_out, is_ours=True) for row in rows]


async def finish_deletion(database: Database, storage: Storage, job: Marked) -> None:
    """Remove a marked job's directories, then its row. Raises what the storage raises."""
    freed, began = 0, time.monotonic()
    async with in_background(_renew_for_ever(database, job.job_id)):
        for path in _directories(job):
            freed += await storage.delete(path)
    async with database.transaction() as tx:
        if freed:
            took = time.monotonic() - began
            await record_changes(tx, [Change(job.user_id, -freed, took)])
        await mark_active(tx, {job.user_id: 0.0})  # a process that was killed has removed some
        await tx.execute(
            delete(jobs).where(jobs.c.id == job.job_id, jobs.c.deleted_at.is_not(None))
        )


def _directories(job: Marked) -> list[UserPath]:
    paths = []
    for path in result_directories(job.user_id, job.paths_out).values():
        if path is not None:
            paths.append(path)
        else:
            log.warning("deletion.path_left", job_id=job.job_id)
    return paths


async def _renew_for_ever(database: Database, job_id: int) -> None:
    while True:
        await asyncio.sleep(_RENEW_EVERY)
        with contextlib.suppress(DatabaseUnavailable):
            async with database.transaction() as tx:
                await tx.execute(
                    update(jobs)
                    .where(jobs.c.id == job_id, jobs.c.deleted_at.is_not(None))
                    .values(deleted_at=utc_now())
                )
