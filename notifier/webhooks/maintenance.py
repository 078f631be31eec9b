"""The periodic work beside the outbox of webhooks' messages."""

from typing import Final

from sqlalchemy import and_, case, func, select

from common.database.engine import Database, utc_now
from common.database.tables import webhook_deliveries, webhooks
from common.outbox.item import OutboxState, state_is
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import Outbox
from notifier import metrics
from notifier.webhooks.delivery import Delivery, is_eligible

RETENTION: Final = 7 * 86_400.0
"""Seconds for which a settled message can be listed and delivered again."""

_BATCH: Final = 200
_NO_REPORT: Final = "the notifier that sent it did not report back"
_PRUNED_AT_ONCE: Final = 1_000


async def resend_doubtful(outbox: Outbox[Delivery]) -> int:
    """A message whose notifier did not report back is sent again, with its id."""
    # this claim sends nothing: counted, it would cost the message one of its retries
    attempts = webhook_deliveries.c.attempts - 1
    count = 0
    while doubtful := await outbox.claim_doubtful(_BATCH):
        await outbox.retry(doubtful, 0.0, _NO_REPORT, attempts=attempts)
        count += len(doubtful)
    return count


async def prune(maintenance: OutboxMaintenance) -> None:
    """Remove messages that were settled long ago."""
    while await maintenance.prune(RETENTION, _PRUNED_AT_ONCE) == _PRUNED_AT_ONCE:
        pass


_state = case(
    (webhooks.c.disabled_at.is_not(None), "disabled"),
    (webhooks.c.failing_since.is_not(None), "failing"),
    else_="working",
).label("state")
_count = select(_state, func.count().label("webhooks")).group_by(_state)

_overdue = select(
    func.min(webhook_deliveries.c.due_at).label("since"), utc_now().label("now")
).where(
    and_(
        state_is(webhook_deliveries, OutboxState.PENDING),
        webhook_deliveries.c.due_at <= utc_now(),
        is_eligible(),
    )
)


async def measure(database: Database) -> None:
    """Webhooks by state, and how long the longest due message waits for us."""
    async with database.reading() as connection:
        counts = {row.state: row.webhooks for row in await connection.execute(_count)}
        overdue = (await connection.execute(_overdue)).one()
    for state in metrics.WEBHOOK_STATES:
        metrics.WEBHOOKS.labels(state).set(counts.get(state, 0))
    age = 0.0 if overdue.since is None else (overdue.now - overdue.since).total_seconds()
    metrics.OVERDUE.set(age)
