"""The one door through which a job's status changes, whoever reports it.

Within the caller's transaction: lock the job, ask `common.jobs.lifecycle` what the report changes,
write it with its event and e-mail. Where a job row and an outbox row change together, the job row
is locked first.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Row,
    bindparam,
    case,
    delete,
    false,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import utc_now
from common.database.tables import emails, handover_numbers, handovers, job_events, jobs
from common.jobs.lifecycle import Change, JobState, Report, Source, Status, decide
from common.outbox.item import OutboxState, state_is

DETAILS_WAIT: Final = 60.0
"""Seconds for which the mail of an `error` without details waits for some to come."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a report."""

    job_id: int
    user_id: str
    correlation_id: str | None
    before: Status
    change: Change
    confirmed_handover: bool
    mail_due: bool


_lock_job = (
    select(
        jobs.c.id,
        jobs.c.user_id,
        jobs.c.user_email,
        jobs.c.status,
        jobs.c.date_started.is_not(None).label("has_started"),
        jobs.c.date_finished.is_not(None).label("has_ended"),
        jobs.c.worker_number,
        jobs.c.correlation_id,
        jobs.c.last_seen_at,
    )
    .where(jobs.c.id == bindparam("locked_id"), jobs.c.deleted_at.is_(None))
    .with_for_update()
)

_job_of_number = select(handover_numbers.c.job_id).where(
    handover_numbers.c.number == bindparam("number")
)

_last_event = (
    select(job_events.c.status, job_events.c.details, job_events.c.source)
    .where(job_events.c.job_id == bindparam("event_job_id"))
    .order_by(job_events.c.id.desc())
    .limit(1)
)


_worker_error = (
    select(job_events.c.id)
    .where(
        job_events.c.job_id == bindparam("event_job_id"),
        job_events.c.status == Status.ERROR,
        job_events.c.source == Source.WORKER,
    )
    .limit(1)
)


async def lock_job(tx: AsyncConnection, job_id: int) -> Row[Any] | None:
    """Lock a job that the user has not deleted; None when there is none."""
    return (await tx.execute(_lock_job, {"locked_id": job_id})).one_or_none()


async def apply_worker_report(tx: AsyncConnection, number: int, report: Report) -> Applied | None:
    """Apply what a worker reports under `number`; None tells that it has to stop.

    The first number from which a worker of this job is heard wins, and settles the hand-over
    whatever its state; a report under any other number of the job is from a superfluous copy.
    """
    job = await lock_job(tx, number)
    if job is None:
        job_id = (await tx.execute(_job_of_number, {"number": number})).scalar_one_or_none()
        job = None if job_id is None else await lock_job(tx, job_id)
    if job is None or job.worker_number not in {None, number}:
        return None
    confirmed = False
    if job.worker_number is None:
        confirmed = await _confirm_handover(tx, job.id, number)
    return await apply_report(tx, job, report, confirmed_handover=confirmed)


async def _confirm_handover(tx: AsyncConnection, job_id: int, number: int) -> bool:
    await tx.execute(update(jobs).where(jobs.c.id == job_id).values(worker_number=number))
    settled = await tx.execute(
        update(handovers)
        .where(handovers.c.job_id == job_id, handovers.c.state != OutboxState.DONE)
        .values(
            state=OutboxState.DONE,
            settled_at=utc_now(),
            owner=None,
            leased_until=None,
            last_error=None,
        )
    )
    return settled.rowcount > 0


async def apply_report(
    tx: AsyncConnection, job: Row[Any], report: Report, *, confirmed_handover: bool = False
) -> Applied:
    """Apply a report to a job locked by `lock_job`."""
    before = Status.of_row(job.status)
    change = decide(await _state_of(tx, job, before), report)
    if before is not Status.FINISHED:
        await _write_job(tx, job.id, change, heard=report.source is Source.WORKER)
    if change.records_event:
        await tx.execute(
            insert(job_events).values(
                job_id=job.id,
                status=report.status,
                details=report.details,
                source=report.source,
                created_at=utc_now(),
            )
        )
    mail_due = await _update_mails(tx, job, change, report)
    return Applied(
        job_id=job.id,
        user_id=job.user_id,
        correlation_id=job.correlation_id,
        before=before,
        change=change,
        confirmed_handover=confirmed_handover,
        mail_due=mail_due,
    )


async def _state_of(tx: AsyncConnection, job: Row[Any], status: Status) -> JobState:
    event = None
    has_failed = False
    of_job = {"event_job_id": job.id}
    if status is not Status.FINISHED:
        event = (await tx.execute(_last_event, of_job)).one_or_none()
    if status is Status.ERROR:
        has_failed = (await tx.execute(_worker_error, of_job)).one_or_none() is not None
    last = event and Report(Status(event.status), event.details, Source(event.source))
    return JobState(status, job.has_started, job.has_ended, last, has_failed=has_failed)


async def _write_job(tx: AsyncConnection, job_id: int, change: Change, *, heard: bool) -> None:
    values: dict[str, Any] = {}
    if heard:
        values["last_seen_at"] = utc_now()
    if change.enters:
        values["status"] = change.status
    if change.starts:
        values["date_started"] = utc_now()
    if change.ends:
        values["date_finished"] = utc_now()
    if change.reopens:
        values["date_finished"] = None
    if change.details:
        details = jobs.c.runtime_details
        values["runtime_details"] = case(
            (or_(details.is_(None), details == ""), change.details),
            else_=details + ("\n" + change.details),
        )
    if values:
        await tx.execute(update(jobs).where(jobs.c.id == job_id).values(values))


async def _update_mails(tx: AsyncConnection, job: Row[Any], change: Change, report: Report) -> bool:
    """Write, withdraw, or go on delaying mails; returns whether one is due now."""
    waits = change.status is Status.ERROR and not report.details
    moved = written = False
    if change.undoes_error:
        await tx.execute(delete(emails).where(*_unsent_error(job)))
    elif change.leaves_error or (change.status is Status.ERROR and not change.enters):
        moved = await _move_mail(tx, job, waits=waits)
    if change.enters and change.status.is_final:
        written = await _write_mail(tx, job, change.status, waits=waits)
    return (moved or written) and not waits


def _unsent_error(job: Row[Any]) -> tuple[ColumnElement[bool], ...]:
    unsent = or_(state_is(emails, OutboxState.PENDING), state_is(emails, OutboxState.HELD))
    return emails.c.job_id == job.id, emails.c.kind == Status.ERROR, unsent


async def _move_mail(tx: AsyncConnection, job: Row[Any], *, waits: bool) -> bool:
    """Send the mail of an `error` that waits for details, or let it wait on from now."""
    moved = await tx.execute(
        update(emails)
        .where(*_unsent_error(job), emails.c.awaits_details == true())
        .values(
            due_at=utc_now(DETAILS_WAIT if waits else 0.0),
            awaits_details=true() if waits else false(),
        )
    )
    return moved.rowcount > 0


async def _write_mail(tx: AsyncConnection, job: Row[Any], kind: Status, *, waits: bool) -> bool:
    if not job.user_email:
        return False
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    result = await tx.execute(
        dialect.insert(emails)
        .values(
            state=OutboxState.PENDING,
            due_at=utc_now(DETAILS_WAIT if waits else 0.0),
            awaits_details=true() if waits else false(),
            correlation_id=job.correlation_id,
            created_at=utc_now(),
            job_id=job.id,
            kind=kind,
            recipient=job.user_email,
            custom_id=uuid4().hex,
        )
        .on_conflict_do_nothing(index_elements=[emails.c.job_id, emails.c.kind])
    )
    return result.rowcount > 0
