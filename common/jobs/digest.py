"""Digests: one mail about all jobs that ended, once none of the user's is under way any more.

Each transaction that ends, cancels or deletes a job holds its user's lock (`common.jobs.events`)
when it looks whether the last one has ended: so exactly one of them, the last to commit, finds so.
"""

from typing import Any, Final
from uuid import uuid4

from sqlalchemy import String, bindparam, delete, exists, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import UNFINISHED, digest_jobs, emails, jobs
from common.jobs.events import lock_user
from common.notifications.choices import Choice, write_choice
from common.notifications.suppression import lift
from common.outbox.item import OutboxState

DIGEST: Final = "digest"
"""The `kind` of such a mail."""

_of_user = bindparam("of_user", type_=String)
_gathered = (digest_jobs.c.user_id == _of_user, digest_jobs.c.mail_id.is_(None))
_under_way = exists().select_from(jobs).where(jobs.c.user_id == _of_user, text(UNFINISHED))

_recipient = (
    select(jobs.c.user_email)
    .join_from(digest_jobs, jobs, jobs.c.id == digest_jobs.c.job_id)
    .where(*_gathered)
    .order_by(digest_jobs.c.job_id.desc())  # the order of the index
    .limit(1)
)
_recipient_if_last = _recipient.where(~_under_way)
_assign = update(digest_jobs).where(*_gathered).values(mail_id=bindparam("of_mail"))
_forget = delete(digest_jobs).where(*_gathered)


async def gather(tx: AsyncConnection, user_id: str, job_id: int) -> None:
    """Let the user's next digest name a job that has ended."""
    dialect: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
    await tx.execute(
        dialect.insert(digest_jobs).values(user_id=user_id, job_id=job_id).on_conflict_do_nothing()
    )


async def leave_out(tx: AsyncConnection, user_id: str, job_ids: list[int]) -> None:
    """Let the user's next digest not name these jobs."""
    of_jobs = digest_jobs.c.job_id.in_(bindparam("ids", job_ids, expanding=True))
    await tx.execute(_forget.where(of_jobs), {"of_user": user_id})


async def write_digest(tx: AsyncConnection, user_id: str, *, at_once: bool = False) -> bool:
    """Write the digest of what was gathered, if no job is under way or `at_once`.

    The user's lock has to be held. Returns whether one was written.
    """
    wanted = _recipient if at_once else _recipient_if_last
    recipient = (await tx.execute(wanted, {"of_user": user_id})).scalar()
    if recipient is None:
        return False
    written = await tx.execute(
        insert(emails)
        .values(
            state=OutboxState.PENDING,
            due_at=utc_now(),
            created_at=utc_now(),
            kind=DIGEST,
            user_id=user_id,
            recipient=recipient,
            custom_id=uuid4().hex,
        )
        .returning(emails.c.id)
    )
    await tx.execute(_assign, {"of_user": user_id, "of_mail": written.scalar_one()})
    return True


async def change_choice(
    database: Database, user_id: str, choice: Choice, *, address: str | None = None
) -> bool:
    """Write the user's choice, which holds for jobs that end from now on; True: a mail is due.

    What was gathered for a digest goes out at once if there is to be none any more, and is
    forgotten with `none`, which also stops mails that wait (`notifier.compose`). Mails go to
    `address` again, if it was suppressed: its owner wants them.
    """
    async with database.transaction() as tx:
        await lock_user(tx, user_id)
        await write_choice(tx, user_id, choice)
        if choice is Choice.NONE:
            await tx.execute(_forget, {"of_user": user_id})
            return False
        if address is not None:
            await lift(tx, address)
        return choice is not Choice.LAST and await write_digest(tx, user_id, at_once=True)
