"""The only writer of `jobs.status` and `jobs.last_seen_at`.

`report` and `report_of_worker` own the whole change: one transaction that locks the job, asks
`common.jobs.lifecycle` what the report changes and writes it with its event and e-mail; then the
wake-ups. Where a job row and an outbox row change together, the job row is locked first.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Float, Row, Text, bindparam, cast, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded, utc_now
from common.database.notify import EMAILS, EVENTS, WEBHOOKS, ChannelNotifier
from common.database.tables import handover_numbers, handovers, job_events, jobs
from common.jobs import metrics
from common.jobs.details import (
    details_size,
    newest,
    overflows,
    superseded,
    superseded_line,
    with_appended,
)
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Change, JobState, Report, Source, Status, decide
from common.jobs.mails import move_mails, write_mails
from common.outbox.item import OutboxState, settlement


@dataclass(frozen=True, slots=True)
class Applied:
    """The effect of a report; `queued` or `ran`: seconds, where it ends the wait or the run."""

    job_id: int
    user_id: str
    correlation_id: str | None
    before: Status
    change: Change
    confirmed_handover: bool
    mail_due: bool
    webhook_due: bool
    application: str
    queued: float | None
    ran: float | None


_lock_job = (
    select(
        jobs.c.id,
        jobs.c.user_id,
        jobs.c.user_email,
        jobs.c.notify,
        jobs.c.status,
        jobs.c.date_started.is_not(None).label("has_started"),
        jobs.c.date_finished.is_not(None).label("has_ended"),
        jobs.c.worker_number,
        jobs.c.correlation_id,
        jobs.c.last_seen_at,
        jobs.c.cancelled_at.is_not(None).label("is_cancelled"),
        jobs.c.cancel_confirmed_at,
        details_size,
        jobs.c.date_created,
        jobs.c.date_started,
        cast(jobs.c.application, Text).label("application"),
        utc_now().label("now"),
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


_cut_events = (
    update(job_events).where(job_events.c.id.in_(superseded)).values(details=superseded_line)
)

_unseen: Final = or_(
    jobs.c.last_seen_at.is_(None),
    jobs.c.last_seen_at < utc_now(-bindparam("unseen_for", type_=Float)),
)

is_unseen: Final = _unseen.label("is_unseen")
"""Whether no worker was heard from within the last `unseen_for` (a parameter, in seconds)."""

_touch = (
    update(jobs)
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)), _unseen)
    .values(last_seen_at=utc_now())
)


async def report_of_worker(
    database: Database, notifier: ChannelNotifier, number: int, report: Report
) -> Applied | None:
    """Apply a worker's report under `number`; None if that worker has to stop.

    It has to if there is no such job, or its user has cancelled it. The first number of a job that
    a worker reports under wins, and settles the hand-over in any state; a report under any other
    number of the job comes from a superfluous copy.
    """
    async with database.transaction() as tx:
        applied = await apply_worker_report(tx, number, report)
    _announce(notifier, applied)
    return None if applied is None or applied.change.stops_worker else applied


async def report(
    database: Database,
    notifier: ChannelNotifier,
    job_id: int,
    report: Report,
    *,
    if_still: tuple[Status, datetime | None] | None = None,
    heard: bool = False,
    settle: Callable[[AsyncConnection], Awaitable[object]] | None = None,
) -> Applied | None:
    """Apply a report of ours about a job; None if it does not apply (any more).

    `if_still` makes it a compare-and-set on status and `last_seen_at`; `heard` also refreshes the
    latter. `settle` runs in the same transaction, even if the job is gone; the report applies only
    if it returns something true.
    """
    async with database.transaction() as tx:
        job = await lock_job(tx, job_id)
        if settle is not None and not await settle(tx):
            return None
        if job is None:
            return None
        if if_still not in {None, (Status.of_row(job.status), job.last_seen_at)}:
            return None
        applied = await _apply(tx, job, report, heard=heard)
    _announce(notifier, applied)
    return applied


async def touch(database: Database, job_ids: Sequence[int], *, unseen_for: float) -> None:
    """Refresh `last_seen_at` of those jobs in which it is older than `unseen_for` seconds."""
    async with database.transaction() as tx:
        await tx.execute(_touch, {"ids": padded(job_ids), "unseen_for": unseen_for})


async def lock_job(tx: AsyncConnection, job_id: int) -> Row[Any] | None:
    """Lock a job that the user has not deleted; None when there is none."""
    return (await tx.execute(_lock_job, {"locked_id": job_id})).one_or_none()


async def apply_worker_report(tx: AsyncConnection, number: int, report: Report) -> Applied | None:
    """`report_of_worker` within a transaction, without the wake-up."""
    job = await lock_job(tx, number)
    if job is None:
        job_id = (await tx.execute(_job_of_number, {"number": number})).scalar_one_or_none()
        job = None if job_id is None else await lock_job(tx, job_id)
    if job is not None and job.is_cancelled:
        return await _apply(tx, job, report, heard=False)
    if job is None or job.worker_number not in {None, number}:
        return None
    confirmed = job.worker_number is None and await _confirm_handover(tx, job.id, number)
    return await _apply(tx, job, report, heard=True, confirmed_handover=confirmed)


def _announce(notifier: ChannelNotifier, applied: Applied | None) -> None:
    """Wake others and count, after the commit (see `common.database.notify`)."""
    if applied is None:
        return
    if applied.mail_due:
        notifier.notify(EMAILS)
    if applied.webhook_due:
        notifier.notify(WEBHOOKS)
    if applied.change.records_event or applied.change.stops_worker:
        notifier.notify(EVENTS, applied.user_id)
    if applied.change.enters and applied.change.status.is_final:
        metrics.ENDED.labels(applied.change.status).inc()
    if applied.queued is not None:
        metrics.QUEUED_SECONDS.labels(applied.application).observe(applied.queued)
    if applied.ran is not None:
        metrics.RUN_SECONDS.labels(applied.application).observe(applied.ran)


async def _confirm_handover(tx: AsyncConnection, job_id: int, number: int) -> bool:
    await tx.execute(update(jobs).where(jobs.c.id == job_id).values(worker_number=number))
    settled = await tx.execute(
        update(handovers)
        .where(handovers.c.job_id == job_id, handovers.c.state != OutboxState.DONE)
        .values(
            **settlement(handovers, OutboxState.DONE),
            owner=None,
            leased_until=None,
            last_error=None,
        )
    )
    return settled.rowcount > 0


async def write_cancelled(
    tx: AsyncConnection, job: Row[Any], *, by: str, reason: str | None, line: str
) -> None:
    """End a locked job that its user cancels; `line` is added to its run-time details."""
    values = {
        "status": Status.ERROR,
        "cancelled_at": utc_now(),
        "cancelled_by": by,
        "cancel_reason": reason,
        "date_finished": func.coalesce(jobs.c.date_finished, utc_now()),
        "runtime_details": await with_appended(tx, job.id, job.details_size, line),
    }
    await tx.execute(update(jobs).where(jobs.c.id == job.id).values(values))


async def _confirm_cancellation(tx: AsyncConnection, job: Row[Any]) -> None:
    """A worker of the cancelled job is told to stop, for the first time."""
    await tx.execute(update(jobs).where(jobs.c.id == job.id).values(cancel_confirmed_at=utc_now()))
    event = NewEvent(
        job_id=job.id,
        user_id=job.user_id,
        type=EventType.CANCELLED,
        status=Status.ERROR,
        source=Source.WORKER,
    )
    await record_events(tx, [event])


async def _apply(
    tx: AsyncConnection,
    job: Row[Any],
    report: Report,
    *,
    heard: bool,
    confirmed_handover: bool = False,
) -> Applied:
    """Apply a report to a job locked by `lock_job`."""
    before = Status.of_row(job.status)
    if report.details:
        report = replace(report, details=newest(report.details))
    change = decide(await _state_of(tx, job, before), report)
    if change.stops_worker and job.cancel_confirmed_at is None:
        await _confirm_cancellation(tx, job)
    if before is not Status.FINISHED and not job.is_cancelled:
        await _write_job(tx, job, change, heard=heard)
    moved = await move_mails(tx, job, change, report)
    webhook_due = False
    if change.records_event:
        event = NewEvent(
            job_id=job.id,
            user_id=job.user_id,
            type=_type_of(change, report),
            status=change.status,
            reported=report.status,
            details=report.details,
            source=report.source,
        )
        webhook_due = await record_events(tx, [event])
        if change.details and overflows(job.details_size, change.details):
            await cut_events(tx, job.id)
    written = await write_mails(tx, job, change, report)  # under the lock of the event
    return Applied(
        job_id=job.id,
        user_id=job.user_id,
        correlation_id=job.correlation_id,
        before=before,
        change=change,
        confirmed_handover=confirmed_handover,
        mail_due=moved or written,
        webhook_due=webhook_due,
        application=metrics.application_label(job.application),
        queued=_seconds(job, job.date_created) if change.starts else None,
        ran=_seconds(job, job.date_started) if change.enters and change.status.is_final else None,
    )


async def cut_events(tx: AsyncConnection, job_id: int) -> None:
    """Cut the details of a job's events behind which a MiB of newer ones has been recorded."""
    await tx.execute(_cut_events, {"of_job": job_id})


def _type_of(change: Change, report: Report) -> EventType:
    if change.enters:
        return EventType.STATUS
    return EventType.DETAILS if report.details else EventType.REPORTED


def _seconds(job: Row[Any], since: datetime | None) -> float | None:
    return None if since is None else max(0.0, (job.now - since).total_seconds())


async def _state_of(tx: AsyncConnection, job: Row[Any], status: Status) -> JobState:
    if status is Status.FINISHED or job.is_cancelled:
        known = (status, job.has_started, job.has_ended)
        return JobState(*known, last=None, is_cancelled=job.is_cancelled)
    of_job = {"event_job_id": job.id}
    event = (await tx.execute(_last_event, of_job)).one_or_none()
    last = event and Report(Status(event.status), event.details, Source(event.source))
    failed = status is Status.ERROR and (await tx.execute(_worker_error, of_job)).first()
    return JobState(status, job.has_started, job.has_ended, last, has_failed=bool(failed))


async def _write_job(tx: AsyncConnection, job: Row[Any], change: Change, *, heard: bool) -> None:
    candidates: list[tuple[bool, str, Any]] = [
        (heard, "last_seen_at", utc_now()),
        (change.enters, "status", change.status),
        (change.starts, "date_started", utc_now()),
        (change.ends, "date_finished", utc_now()),
        (change.reopens, "date_finished", None),
    ]
    values = {name: value for applies, name, value in candidates if applies}
    if change.details:
        values["runtime_details"] = await with_appended(
            tx, job.id, job.details_size, change.details
        )
    if values:
        await tx.execute(update(jobs).where(jobs.c.id == job.id).values(values))
