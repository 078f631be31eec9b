"""Webhooks' rows, and how they are shown. Ownership is in every query."""

from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.tables import MAX_JOB_ID, webhooks
from gateway.http.responses import iso
from gateway.identity import User
from gateway.webhooks.errors import WebhookNotFound

Answer = dict[str, Any]

SHOWN: Final = (
    webhooks.c.id,
    webhooks.c.url,
    webhooks.c.events,
    webhooks.c.labels,
    webhooks.c.disabled_at,
)


def own(user: User, webhook_id: int) -> tuple[Any, ...]:
    return webhooks.c.id == webhook_id, webhooks.c.user_id == user.id


async def find(connection: AsyncConnection, user: User, webhook_id: int) -> Any:
    """Raises `WebhookNotFound`."""
    found = None
    if 0 < webhook_id <= MAX_JOB_ID:
        statement = select(*SHOWN).where(*own(user, webhook_id))
        found = (await connection.execute(statement)).one_or_none()
    if found is None:
        raise WebhookNotFound
    return found


def as_json(row: Any) -> Answer:
    return {
        "id": row.id,
        "url": row.url,
        "events": row.events,
        "labels": row.labels,
        "disabled_at": iso(row.disabled_at),
    }
