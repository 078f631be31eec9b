"""The standing of receivers, in the database, where all notifiers see it.

It is a circuit breaker for each: when messages fail one after another, the receiver is paused, and
after the pause one message at a time tries it. A receiver that never recovers is disabled.
"""

from typing import Final
from uuid import uuid4

from sqlalchemy import bindparam, case, exists, insert, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import emails, webhook_deliveries, webhooks
from common.outbox.item import OutboxState, settlement, state_is
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.messages import NOTICE

THRESHOLD: Final = 5
"""Messages that fail in a row until their receiver is paused."""

LONGEST_PAUSE: Final = 300.0
"""Seconds; the pause is doubled with each failure up to it."""

log = get_logger()


class Standings:
    """Notes what receivers take, and disables those that take nothing."""

    def __init__(self, database: Database, *, first_pause: float, give_up_after: float) -> None:
        """Both in seconds."""
        self._database = database
        self._first_pause = first_pause
        self._give_up_after = give_up_after
        failures = webhooks.c.failures
        # retries of one message, which have a schedule of their own, pause nothing
        more = case((bindparam("is_new"), 1), (failures >= THRESHOLD, 1), else_=0)
        self._failed = (
            update(webhooks)
            .where(webhooks.c.id == bindparam("of_id"), webhooks.c.disabled_at.is_(None))
            .values(
                failing_since=case(
                    (webhooks.c.failing_since.is_(None), utc_now()),
                    else_=webhooks.c.failing_since,
                ),
                failures=failures + more,
            )
            .returning(
                failures,
                (webhooks.c.failing_since <= utc_now(-give_up_after)).label("is_hopeless"),
            )
        )

    async def recovered(self, webhook_id: int) -> None:
        """The receiver has taken something."""
        values = {"failing_since": None, "failures": 0, "paused_until": None}
        async with self._database.statement() as tx:
            await tx.execute(
                update(webhooks)
                .where(webhooks.c.id == webhook_id, webhooks.c.failing_since.is_not(None))
                .values(values)
            )

    async def failed(self, webhook_id: int, *, is_new: bool) -> bool:
        """The receiver has not taken a message, a new one or a repeated one.

        Returns whether it may be given the next one now.
        """
        async with self._database.transaction() as tx:
            found = await tx.execute(self._failed, {"of_id": webhook_id, "is_new": is_new})
            standing = found.one_or_none()
            if standing is None:
                return False
            if standing.is_hopeless:
                await self._give_up(tx, webhook_id)
                return False
            if standing.failures < THRESHOLD:
                return True
            doubled = self._first_pause * 2.0 ** min(standing.failures - THRESHOLD, 30)
            pause = utc_now(min(doubled, LONGEST_PAUSE))
            await tx.execute(
                update(webhooks).where(webhooks.c.id == webhook_id).values(paused_until=pause)
            )
        return False

    async def gone(self, webhook_id: int) -> None:
        """The receiver wants nothing any more."""
        async with self._database.transaction() as tx:
            await self._disable(tx, webhook_id, reason="gone")

    async def sweep(self) -> None:
        """Give up receivers that have not taken anything for long, with nothing left to try."""
        waiting = exists().where(
            webhook_deliveries.c.webhook_id == webhooks.c.id,
            webhook_deliveries.c.settled_at.is_(None),
        )
        hopeless = (
            select(webhooks.c.id)
            .where(
                webhooks.c.failing_since <= utc_now(-self._give_up_after),
                webhooks.c.disabled_at.is_(None),
                not_(waiting),
            )
            .order_by(webhooks.c.id)
            .with_for_update(skip_locked=True)
        )
        async with self._database.transaction() as tx:
            for webhook_id in (await tx.execute(hopeless)).scalars().all():
                await self._give_up(tx, webhook_id)

    async def _give_up(self, tx: AsyncConnection, webhook_id: int) -> None:
        if await self._disable(tx, webhook_id, reason="failing"):
            await _write_notice(tx, webhook_id)

    async def _disable(self, tx: AsyncConnection, webhook_id: int, *, reason: str) -> bool:
        """Disable a webhook and drop what waits; `failing_since` stays, for the owner's mail.

        Returns whether it was enabled.
        """
        disabled = await tx.execute(
            update(webhooks)
            .where(webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_(None))
            .values(disabled_at=utc_now(), paused_until=None)
        )
        if not disabled.rowcount:
            return False
        await tx.execute(
            update(webhook_deliveries)
            .where(
                webhook_deliveries.c.webhook_id == webhook_id,
                state_is(webhook_deliveries, OutboxState.PENDING),
            )
            .values(
                **settlement(webhook_deliveries, OutboxState.DROPPED),
                last_error="the webhook is disabled",
            )
        )
        metrics.WEBHOOKS_DISABLED.labels(reason).inc()
        log.warning("webhook.disabled", webhook_id=webhook_id, reason=reason)
        return True


async def _write_notice(tx: AsyncConnection, webhook_id: int) -> None:
    """Write the mail to the owner of a webhook, if there is an address."""
    webhook = select(webhooks.c.user_id, webhooks.c.mail_to).where(webhooks.c.id == webhook_id)
    owner = (await tx.execute(webhook)).one()
    if owner.mail_to is None:
        return
    await tx.execute(
        insert(emails).values(
            state=OutboxState.PENDING,
            due_at=utc_now(),
            created_at=utc_now(),
            kind=NOTICE,
            user_id=owner.user_id,
            webhook_id=webhook_id,
            recipient=owner.mail_to,
            custom_id=uuid4().hex,
        )
    )
