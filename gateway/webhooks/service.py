"""Users' webhooks: adding, changing and removing them."""

import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Update,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import webhook_deliveries, webhooks
from common.outbox.item import OutboxState, settlement, state_is
from common.webhooks.keys import SecretBox
from common.webhooks.settings import WebhookSettings
from gateway.http.errors import Fault, Invalid
from gateway.identity import User
from gateway.webhooks.errors import (
    TooManyWebhooks,
    WebhookNotFound,
)
from gateway.webhooks.store import SHOWN, Answer, as_json, find, own
from gateway.webhooks.urls import WrongUrl, check_url

MOST: Final = 10
"""Webhooks that a user may have."""

_OVERLAP: Final = 86_400.0
"""Seconds for which a replaced secret signs as well."""

_MOST_PREVIOUS: Final = 4
"""Replaced secrets that sign as well: each makes a signature more in every message."""

_LOCKS: Final = 3_318_774_096_415
"""Seed of the advisory locks; arbitrary, but the same in all processes."""

_SECRET_BYTES: Final = 32

_IN_GOOD_STANDING: Final[dict[str, Any]] = {
    "failing_since": None,
    "failures": 0,
    "paused_until": None,
}


class Webhooks:
    """Every operation is on behalf of one user, and sees that user's webhooks only."""

    def __init__(self, database: Database, settings: WebhookSettings) -> None:
        self._database = database
        self._allow_private = settings.allow_private
        self._box = SecretBox(settings.keys)

    async def add(self, user: User, wanted: Mapping[str, Any]) -> Answer:
        """Add a webhook; the answer shows its secret. Raises `Invalid` and `TooManyWebhooks`."""
        self._check(wanted)
        secret = _new_secret()
        row = {
            "user_id": user.id,
            "url": wanted["url"],
            "events": wanted["events"],
            "labels": wanted["labels"] or [],
            "secret": self._box.seal(secret),
            "mail_to": user.mail_to,
            "created_at": utc_now(),
        }
        count = select(func.count()).where(webhooks.c.user_id == user.id)
        async with self._database.transaction() as tx:
            await self._lock(tx, user.id)
            if (await tx.execute(count)).scalar_one() >= MOST:
                raise TooManyWebhooks
            added = await tx.execute(insert(webhooks).values(row).returning(*SHOWN))
            return {**as_json(added.one()), "secret": secret}

    async def _lock(self, tx: AsyncConnection, user_id: str) -> None:
        """Let the user's additions follow each other, so that a count holds; SQLite's do."""
        if not self._database.is_sqlite:
            key = func.hashtextextended(user_id, cast(literal(_LOCKS), BigInteger))
            await tx.execute(select(func.pg_advisory_xact_lock(key)))

    def _check(self, wanted: Mapping[str, Any]) -> None:
        if "url" not in wanted:
            return
        try:
            check_url(wanted["url"], allow_private=self._allow_private)
        except WrongUrl as error:
            fault = Fault(["body", "url"], f"Value error, {error}", "value_error")
            raise Invalid(fault) from error

    async def all(self, user: User) -> list[Answer]:
        """The user's webhooks, oldest first."""
        statement = select(*SHOWN).where(webhooks.c.user_id == user.id).order_by(webhooks.c.id)
        async with self._database.reading() as connection:
            return [as_json(row) for row in await connection.execute(statement)]

    async def find(self, user: User, webhook_id: int) -> Answer:
        """One webhook. Raises `WebhookNotFound`."""
        async with self._database.reading() as connection:
            return as_json(await find(connection, user, webhook_id))

    async def change(self, user: User, webhook_id: int, wanted: Mapping[str, Any]) -> Answer:
        """Change what is given. Raises `Invalid` and `WebhookNotFound`.

        An address that is new, or enabled again, starts in good standing.
        """
        self._check(wanted)
        values = {name: wanted[name] for name in ("url", "events") if name in wanted}
        if "labels" in wanted:
            values["labels"] = wanted["labels"] or []
        if "url" in wanted:
            values |= _IN_GOOD_STANDING
        disabled = wanted.get("disabled")
        if disabled:
            values["disabled_at"] = func.coalesce(webhooks.c.disabled_at, utc_now())
        elif disabled is not None:
            values |= {**_IN_GOOD_STANDING, "disabled_at": None}
        async with self._database.transaction() as tx:
            found = await find(tx, user, webhook_id)
            if not values:
                return as_json(found)
            changed = (await tx.execute(_update(user, webhook_id, values))).one_or_none()
            if changed is None:
                raise WebhookNotFound
            if disabled:
                await _drop_waiting(tx, webhook_id)
        return as_json(changed)

    async def delete(self, user: User, webhook_id: int) -> None:
        """Remove a webhook with its deliveries. Raises `WebhookNotFound`."""
        async with self._database.transaction() as tx:
            await find(tx, user, webhook_id)
            await tx.execute(delete(webhooks).where(*own(user, webhook_id)))

    async def rotate(self, user: User, webhook_id: int) -> Answer:
        """Replace the secret, which signs as well for a day. Raises `WebhookNotFound`.

        So do those that were replaced during the day before: a repeated request, whose first answer
        was lost, must not take the secret that the receiver knows.
        """
        secret = _new_secret()
        still_valid = case((webhooks.c.previous_until > utc_now(), webhooks.c.previous_secret))
        sealed = select(webhooks.c.secret, still_valid.label("previous")).with_for_update()
        async with self._database.transaction() as tx:
            await find(tx, user, webhook_id)
            found = (await tx.execute(sealed.where(*own(user, webhook_id)))).one_or_none()
            if found is None:
                raise WebhookNotFound
            previous = [found.secret, *(found.previous or "").split()]
            values = {
                "previous_secret": " ".join(previous[:_MOST_PREVIOUS]),
                "previous_until": utc_now(_OVERLAP),
                "secret": self._box.seal(secret),
            }
            changed = (await tx.execute(_update(user, webhook_id, values))).one_or_none()
            if changed is None:
                raise WebhookNotFound
        return {**as_json(changed), "secret": secret}


def _update(user: User, webhook_id: int, values: Mapping[str, Any]) -> Any:
    statement: Update = update(webhooks).where(*own(user, webhook_id)).values(values)
    return statement.returning(*SHOWN)


async def _drop_waiting(tx: AsyncConnection, webhook_id: int) -> None:
    """What is being sent is left to the notifier."""
    await tx.execute(
        update(webhook_deliveries)
        .where(
            webhook_deliveries.c.webhook_id == webhook_id,
            state_is(webhook_deliveries, OutboxState.PENDING),
        )
        .values(
            **settlement(webhook_deliveries, OutboxState.DROPPED),
            last_error="the webhook was disabled",
        )
    )


def _new_secret() -> str:
    """A secret as Standard Webhooks 1.0 writes symmetric ones: 24 to 64 random bytes."""
    return f"whsec_{b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()}"
