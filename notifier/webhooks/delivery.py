"""What is delivered: claimed messages, and what is read to send them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, not_, select

from common.database.engine import Database, padded, utc_now
from common.database.tables import webhook_deliveries, webhooks
from common.outbox.item import OutboxItem, OutboxState, state_is

_LONG: Final = 16_384
"""Characters of a body beyond which it is read by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(OutboxItem):
    """A claimed message; `attempts_before` do not count in the schedule of its retries."""

    webhook_id: int
    job_id: int | None
    message: str
    event: str
    attempts_before: int

    @property
    def attempt(self) -> int:
        """The number of this attempt in the schedule, from 1."""
        return self.attempts - self.attempts_before


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """How a message is sent now; `body` is None if it is long.

    `is_failing`: the receiver has not taken anything since it last failed. `must_wait`: an earlier
    message to the same receiver is on its way from elsewhere.
    """

    url: str
    secret: str
    previous_secret: str | None
    """Encrypted secrets, with spaces, which sign as well."""

    is_disabled: bool
    is_failing: bool
    must_wait: bool
    body: str | None


_other: Final[Any] = webhook_deliveries.alias("other")


def is_eligible() -> ColumnElement[bool]:
    """Whether a message may be sent now, with regard to its receiver.

    A receiver gets one message at a time, in order, and none while it is paused: one that hangs
    holds one slot, and those that fail again and again hold none.
    """
    being_sent = exists().where(
        _other.c.webhook_id == webhook_deliveries.c.webhook_id,
        state_is(_other, OutboxState.SENDING),
    )
    paused = exists().where(
        webhooks.c.id == webhook_deliveries.c.webhook_id, webhooks.c.paused_until > utc_now()
    )
    return and_(not_(being_sent), not_(paused))


_letters = (
    select(
        webhook_deliveries.c.id,
        webhooks.c.url,
        webhooks.c.secret,
        case((webhooks.c.previous_until > utc_now(), webhooks.c.previous_secret)).label(
            "previous_secret"
        ),
        webhooks.c.disabled_at.is_not(None).label("is_disabled"),
        webhooks.c.failing_since.is_not(None).label("is_failing"),
        exists()
        .where(
            _other.c.webhook_id == webhook_deliveries.c.webhook_id,
            state_is(_other, OutboxState.SENDING),
            _other.c.id < webhook_deliveries.c.id,
            _other.c.owner != webhook_deliveries.c.owner,
        )
        .label("must_wait"),
        case(
            (func.length(webhook_deliveries.c.payload) <= _LONG, webhook_deliveries.c.payload)
        ).label("body"),
    )
    .join_from(webhook_deliveries, webhooks, webhooks.c.id == webhook_deliveries.c.webhook_id)
    .where(webhook_deliveries.c.id.in_(bindparam("ids", expanding=True)))
)

_body = select(webhook_deliveries.c.payload).where(webhook_deliveries.c.id == bindparam("of_id"))


async def read_letters(
    database: Database, deliveries: Sequence[Delivery]
) -> list[Letter | Exception | None]:
    """One letter each, in their order; None where the webhook or the job has been deleted."""
    async with database.reading() as connection:
        ids = padded([delivery.id for delivery in deliveries])
        rows = (await connection.execute(_letters, {"ids": ids})).mappings().all()
    found: dict[int, dict[str, Any]] = {row["id"]: dict(row) for row in rows}
    for row in found.values():
        del row["id"]
    return [
        Letter(**found[delivery.id]) if delivery.id in found else None for delivery in deliveries
    ]


async def read_body(database: Database, delivery: Delivery) -> str | None:
    """The body of a message; None if it has been deleted."""
    async with database.reading() as connection:
        found = await connection.execute(_body, {"of_id": delivery.id})
        return found.scalar_one_or_none()
