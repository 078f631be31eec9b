"""The mail to the owner of a webhook that was disabled after days of failure.

It is due with the webhook's row, not with a job's, so that it is no row of `emails`. It is sent
once; a second time at most if Mailjet's answer was lost and its look-up does not know the mail.
"""

from dataclasses import dataclass
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import select, update

from common.database.engine import Database, utc_now
from common.database.tables import webhooks
from common.telemetry.logs import get_logger
from notifier.mailjet import Mailjet, Verdict
from notifier.messages import Message

_RETRY: Final = 60.0
"""Seconds until a mail is tried again; no other notifier tries it meanwhile."""

_BATCH: Final = 10
_ENABLE: Final = '{"disabled": false}'

log = get_logger()


@dataclass(kw_only=True, eq=False)
class Notices:
    """Sends the mails that are due; without a `mailjet` they are given up, as others are."""

    database: Database
    mailjet: Mailjet | None

    async def sweep(self) -> None:
        due = (
            select(webhooks.c.id)
            .where(webhooks.c.notice_due_at <= utc_now())
            .order_by(webhooks.c.notice_due_at)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self.database.statement() as tx:
            taken = await tx.execute(
                update(webhooks)
                .where(webhooks.c.id.in_(due))
                .values(notice_due_at=utc_now(_RETRY))
                .returning(
                    webhooks.c.id, webhooks.c.url, webhooks.c.mail_to, webhooks.c.disabled_at
                )
            )
            rows = taken.all()
        for row in rows:
            if await self._send(row):
                await self._settle(row.id)

    async def _send(self, row: Any) -> bool:
        """Whether nothing is left to do."""
        if self.mailjet is None:
            log.warning("webhook.notice_discarded", webhook_id=row.id)
            return True
        message = write_notice(row)
        if await self.mailjet.find(message.custom_id):
            return True
        (outcome,) = await self.mailjet.send([message])
        log.info("webhook.notice_sent", webhook_id=row.id, outcome=outcome.verdict)
        return outcome.verdict in {Verdict.SENT, Verdict.FAILED}

    async def _settle(self, webhook_id: int) -> None:
        async with self.database.statement() as tx:
            await tx.execute(
                update(webhooks).where(webhooks.c.id == webhook_id).values(notice_due_at=None)
            )


def write_notice(row: Any) -> Message:
    """The mail about a webhook's row; the path of its URL, which may be a secret, stays out."""
    host = urlsplit(row.url).netloc
    lines = [
        f"Your webhook {row.id} to {host} has been disabled: it has taken no message for days.",
        "Messages that were waiting have been dropped.",
        f"Once it works again, PATCH /webhooks/{row.id} with {_ENABLE} enables the webhook.",
        f"GET /webhooks/{row.id}/deliveries lists what it has missed.",
    ]
    return Message(
        recipient=row.mail_to,
        custom_id=f"webhook-{row.id}-{row.disabled_at:%Y%m%d%H%M%S%f}",
        correlation_id=None,
        subject=f"Webhook {row.id} to {host} has been disabled",
        text="\n\n".join([*lines, ""]),
        html="".join(f"<p>{escape(line)}</p>" for line in lines),
    )
