"""E-mails about jobs: one per job and final status, written with the change that it reports.

Whether one is written, the job's or the user's choice decides (`common.notifications.choices`). The
mail of an `error` without details is delayed, since they often follow; the mail of an `error` that
is undone is withdrawn unless it has been sent.
"""

from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, delete, or_, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import utc_now
from common.database.tables import emails
from common.jobs.digest import gather, write_digest
from common.jobs.lifecycle import Change, Report, Status
from common.notifications.choices import Choice, read_choice
from common.outbox.item import OutboxState, state_is

DETAILS_WAIT: Final = 60.0
"""Seconds for which the mail of an `error` without details is delayed."""


async def move_mails(tx: AsyncConnection, job: Row[Any], change: Change, report: Report) -> bool:
    """Withdraw, release or delay mails that are there; returns whether one is due now."""
    waits = _waits(change, report)
    if change.undoes_error:
        await tx.execute(delete(emails).where(*_unsent_error(job)))
    elif change.leaves_error or (change.status is Status.ERROR and not change.enters):
        return await _move_mail(tx, job, waits=waits) and not waits
    return False


async def write_mails(tx: AsyncConnection, job: Row[Any], change: Change, report: Report) -> bool:
    """Write what the end of a job causes; returns whether a mail is due now.

    The user's lock has to be held, so that a changed choice counts and one digest is written.
    """
    if not (change.enters and change.status.is_final):
        return False
    is_due, waits = False, _waits(change, report)
    if job.user_email:
        choice = Choice(job.notify) if job.notify else await read_choice(tx, job.user_id)
        if choice is Choice.LAST:
            await gather(tx, job.user_id, job.id)
        elif choice.wants(error=change.status is Status.ERROR):
            is_due = await _write_mail(tx, job, change.status, waits=waits) and not waits
    return await write_digest(tx, job.user_id) or is_due


def _waits(change: Change, report: Report) -> bool:
    return change.status is Status.ERROR and not report.details


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
            user_id=job.user_id,
            recipient=job.user_email,
            custom_id=uuid4().hex,
        )
        .on_conflict_do_nothing(index_elements=[emails.c.job_id, emails.c.kind])
    )
    return result.rowcount > 0
