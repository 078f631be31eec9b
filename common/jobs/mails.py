"""E-mails about jobs: one per job and final status, written with the change that it reports.

The mail of an `error` without details is delayed, since they often follow; the mail of an `error`
that is undone is withdrawn unless it has been sent.
"""

from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, delete, or_, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import utc_now
from common.database.tables import emails
from common.jobs.lifecycle import Change, Report, Status
from common.outbox.item import OutboxState, state_is

DETAILS_WAIT: Final = 60.0
"""Seconds for which the mail of an `error` without details is delayed."""


async def update_mails(tx: AsyncConnection, job: Row[Any], change: Change, report: Report) -> bool:
    """Write, withdraw, release or delay mails; returns whether one is due now."""
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
    """Make the delayed mail of an `error` due now or, with `waits`, restart its delay."""
    delayed = (*_unsent_error(job), emails.c.awaits_details == true())
    moved = await tx.execute(update(emails).where(*delayed).values(_delay(waits=waits)))
    return moved.rowcount > 0


def _delay(*, waits: bool) -> dict[str, Any]:
    return {"due_at": utc_now(DETAILS_WAIT if waits else 0.0), "awaits_details": waits}


async def _write_mail(tx: AsyncConnection, job: Row[Any], kind: Status, *, waits: bool) -> bool:
    if not job.user_email:
        return False
    dialect = sqlite if tx.dialect.name == "sqlite" else postgresql
    result = await tx.execute(
        dialect.insert(emails)
        .values(
            **_delay(waits=waits),
            state=OutboxState.PENDING,
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
