"""What was delivered to a webhook: listing it, and sending it again."""

from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.notify import WEBHOOKS, ChannelNotifier
from common.database.tables import MAX_JOB_ID, webhook_deliveries, webhooks
from common.jobs.webhooks import new_message_id, write_body
from common.outbox.item import OutboxState, state_is
from gateway.http.responses import iso
from gateway.identity import User
from gateway.webhooks.errors import DeliveryNotFound, WebhookDisabled
from gateway.webhooks.schemas import MAX_PAGE
from gateway.webhooks.store import Answer, find, own

_DELIVERY: Final = (
    webhook_deliveries.c.message,
    webhook_deliveries.c.event,
    webhook_deliveries.c.attempts,
    webhook_deliveries.c.last_status,
    webhook_deliveries.c.created_at,
    webhook_deliveries.c.due_at,
    webhook_deliveries.c.state,
)
_AWAITED: Final = frozenset({OutboxState.PENDING, OutboxState.SENDING, OutboxState.IN_DOUBT})


class Deliveries:
    """Every operation is on behalf of one user, and sees that user's webhooks only."""

    def __init__(self, database: Database, notifier: ChannelNotifier) -> None:
        self._database = database
        self._notifier = notifier

    async def test(self, user: User, webhook_id: int) -> Answer:
        """Send a test message. Raises `WebhookNotFound` and `WebhookDisabled`."""
        async with self._database.transaction() as tx:
            now = await self._resume(tx, user, webhook_id)
            row = {
                "webhook_id": webhook_id,
                "state": OutboxState.PENDING,
                "message": new_message_id(),
                "event": "webhook.test",
                "payload": write_body("webhook.test", now, {}),
                "due_at": utc_now(),
                "created_at": utc_now(),
            }
            statement = insert(webhook_deliveries).values(row).returning(*_DELIVERY)
            added = (await tx.execute(statement)).one()
        self._notifier.notify(WEBHOOKS)
        return _as_json(added)

    async def _resume(self, tx: AsyncConnection, user: User, webhook_id: int) -> Any:
        """Let the next message go out at once, since its owner waits for it; returns the time."""
        if (await find(tx, user, webhook_id)).disabled_at is not None:
            raise WebhookDisabled
        resumed = (
            update(webhooks)
            .where(*own(user, webhook_id), webhooks.c.disabled_at.is_(None))
            .values(paused_until=None)
            .returning(utc_now())
        )
        now = (await tx.execute(resumed)).scalar_one_or_none()
        if now is None:
            raise WebhookDisabled
        return now

    async def page(self, user: User, webhook_id: int, *, offset: int, limit: int) -> list[Answer]:
        """A page of the webhook's deliveries, newest first. Raises `WebhookNotFound`."""
        table = webhook_deliveries.c
        page = (
            select(*_DELIVERY)
            .where(table.webhook_id == webhook_id)
            .order_by(table.id.desc())
            .offset(min(offset, MAX_JOB_ID))
            .limit(min(limit, MAX_PAGE))
        )
        async with self._database.reading() as connection:
            await find(connection, user, webhook_id)
            return [_as_json(row) for row in await connection.execute(page)]

    async def redeliver(self, user: User, webhook_id: int, message: str) -> Answer:
        """Send a message again, or earlier, with its id and a schedule of its own.

        Raises `WebhookNotFound`, `DeliveryNotFound` and `WebhookDisabled`.
        """
        table = webhook_deliveries.c
        again = {
            "state": OutboxState.PENDING,
            "due_at": utc_now(),
            "settled_at": None,
            "attempts_before": table.attempts,
        }
        wanted = (table.webhook_id == webhook_id, table.message == message)
        settled_or_waiting = table.settled_at.is_not(None) | state_is(
            webhook_deliveries, OutboxState.PENDING
        )
        async with self._database.transaction() as tx:
            await self._resume(tx, user, webhook_id)
            statement = update(webhook_deliveries).where(*wanted, settled_or_waiting).values(again)
            await tx.execute(statement)
            found = (await tx.execute(select(*_DELIVERY).where(*wanted))).one_or_none()
            if found is None:
                raise DeliveryNotFound
        self._notifier.notify(WEBHOOKS)
        return _as_json(found)


def _as_json(row: Any) -> Answer:
    return {
        "id": row.message,
        "event": row.event,
        "attempts": row.attempts,
        "last_status": row.last_status,
        "date": iso(row.created_at),
        "next_attempt": iso(row.due_at) if row.state in _AWAITED else None,
    }
