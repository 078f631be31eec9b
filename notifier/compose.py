"""From claimed mails to messages: what the database says of their jobs and their recipients now.

A mail that waited is stopped here if its user has chosen `none` since, or its address bounced.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import Row, case, false, func, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, padded
from common.database.tables import (
    digest_jobs,
    emails,
    job_labels,
    jobs,
    notification_choices,
    webhooks,
)
from common.jobs.digest import DIGEST
from common.jobs.lifecycle import Status
from common.notifications.choices import Choice
from common.notifications.suppression import find_suppressed, normalised
from notifier.messages import (
    MAX_DETAILS,
    MAX_OUTPUT,
    NOTICE,
    Digest,
    Ended,
    Job,
    Mail,
    Message,
    Site,
    Webhook,
    on_one_line,
    write_digest,
    write_message,
    write_notice,
)

MAX_NAMED: Final = 200
"""Jobs that a digest names."""

_FINAL: Final = [status for status in Status if status.is_final]

_LENGTH: Final = func.length(jobs.c.runtime_details)
_IS_LONG: Final = func.coalesce(_LENGTH > MAX_DETAILS, false())
_OUTPUT: Final = case(
    (_LENGTH > MAX_OUTPUT, func.substr(jobs.c.runtime_details, _LENGTH - MAX_OUTPUT)),
    else_=jobs.c.runtime_details,
)
"""What a mail's details are made from, and one character more if there are more."""

_FACTS: Final = (
    select(
        emails.c.id.label("mail_id"),
        jobs.c.id,
        jobs.c.user_id,
        jobs.c.job_name,
        jobs.c.notify,
        jobs.c.application,
        jobs.c.paths_out,
        jobs.c.date_created,
        jobs.c.date_started,
        jobs.c.date_finished,
        case((not_(_IS_LONG), jobs.c.runtime_details)).label("details"),
        _IS_LONG.label("is_long"),
        notification_choices.c.mail.label("choice"),
    )
    .select_from(emails)
    .outerjoin(jobs, jobs.c.id == emails.c.job_id)
    .outerjoin(
        notification_choices,
        notification_choices.c.user_id == func.coalesce(emails.c.user_id, jobs.c.user_id),
    )
)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A mail that is not to be sent, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Composer:
    """Reads and writes; raises what the database raises."""

    database: Database
    site: Site

    async def compose(self, batch: Sequence[Mail]) -> list[Message | Stopped]:
        """What becomes of each mail of the batch, in its order.

        Long details are read and interpreted one after the other, which bounds the memory.
        """
        async with self.database.reading() as connection:
            wanted = _FACTS.where(emails.c.id.in_(padded([mail.id for mail in batch])))
            rows: Sequence[Any] = (await connection.execute(wanted)).all()
            labels = await _read_labels(connection, batch)
            suppressed = await find_suppressed(connection, {mail.recipient for mail in batch})
        facts = {row.mail_id: row for row in rows}
        composed: list[Message | Stopped] = []
        for mail in batch:
            row = facts.get(mail.id)
            reason = suppressed.get(normalised(mail.recipient))
            if reason is not None:
                composed.append(Stopped(f"the address gets no mails: {reason}"))
            elif row is not None and row.choice == Choice.NONE and not row.notify:
                composed.append(Stopped("the user has chosen to get no mails"))
            elif mail.kind == DIGEST:
                composed.append(await self._digest(mail))
            elif mail.kind == NOTICE:
                composed.append(await self._notice(mail))
            else:
                composed.append(await self._message(mail, row, labels.get(mail.job_id or 0, {})))
        return composed

    async def _message(self, mail: Mail, row: Row[Any] | None, labels: dict[str, str]) -> Message:
        if row is None or row.id is None:
            return write_message(mail, None, self.site)
        if not row.is_long:
            return write_message(mail, _job(row, labels, row.details), self.site)
        job = _job(row, labels, await self._output_of(row.id))
        return await asyncio.to_thread(write_message, mail, job, self.site)

    async def _output_of(self, job_id: int) -> str | None:
        async with self.database.reading() as connection:
            found = await connection.execute(select(_OUTPUT).where(jobs.c.id == job_id))
            return found.scalar_one_or_none()

    async def _digest(self, mail: Mail) -> Message | Stopped:
        of_mail = (
            select(jobs.c.id, jobs.c.job_name, jobs.c.status)
            .join_from(digest_jobs, jobs, jobs.c.id == digest_jobs.c.job_id)
            .where(
                digest_jobs.c.mail_id == mail.id,
                jobs.c.deleted_at.is_(None),
                # undone since, as the error of a job that was retried
                jobs.c.status.in_(_FINAL),
                jobs.c.cancelled_at.is_(None),
            )
        )
        found = of_mail.subquery()
        counted = select(found.c.status, func.count().label("jobs")).group_by(found.c.status)
        first = of_mail.order_by(digest_jobs.c.id).limit(MAX_NAMED)
        async with self.database.reading() as connection:
            counts = {row.status: row.jobs for row in await connection.execute(counted)}
            rows = (await connection.execute(first)).all()
        if not rows:
            return Stopped("all of its jobs have been deleted, or are under way again")
        named = [Ended(row.id, on_one_line(row.job_name or ""), row.status) for row in rows]
        return write_digest(mail, Digest(counts, named), self.site)

    async def _notice(self, mail: Mail) -> Message | Stopped:
        columns = (webhooks.c.id, webhooks.c.url, webhooks.c.failing_since, webhooks.c.disabled_at)
        wanted = select(*columns).where(
            webhooks.c.id == mail.webhook_id, webhooks.c.disabled_at.is_not(None)
        )
        async with self.database.reading() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        if row is None:
            return Stopped("the webhook has been deleted, or enabled again")
        # without its path, which may be a secret
        host = urlsplit(row.url).netloc
        webhook = Webhook(row.id, host, row.failing_since, row.disabled_at)
        return write_notice(mail, webhook, self.site)


def _job(row: Row[Any], labels: dict[str, str], details: str | None) -> Job:
    return Job(
        name=row.job_name or "",
        user_id=row.user_id,
        application=_texts(row.application),
        labels=labels,
        results=_texts(row.paths_out),
        submitted=row.date_created,
        started=row.date_started,
        ended=row.date_finished,
        details=details,
        is_chosen=bool(row.notify),
    )


def _texts(value: Any) -> list[str]:
    """The values of an object; of an adopted row it may be anything."""
    return [str(text) for text in value.values()] if isinstance(value, dict) else []


async def _read_labels(
    connection: AsyncConnection, batch: Sequence[Mail]
) -> Mapping[int, dict[str, str]]:
    ids = [mail.job_id for mail in batch if mail.job_id is not None]
    of_jobs = job_labels.c.job_id.in_(padded(ids)) if ids else false()
    found: dict[int, dict[str, str]] = {}
    for row in await connection.execute(select(job_labels).where(of_jobs)):
        found.setdefault(row.job_id, {})[row.key] = row.value
    return found
