"""The notifier's part that delivers to webhooks, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from common.database.notify import WEBHOOKS
from common.database.tables import webhook_deliveries
from common.outbox.pipeline import Pipeline
from common.runtime.daemon import Daemon
from common.telemetry.logs import get_logger
from common.webhooks.keys import SecretBox
from notifier import metrics
from notifier.settings import WebhookDeliverySettings
from notifier.webhooks import maintenance
from notifier.webhooks.connections import open_session
from notifier.webhooks.courier import AT_ONCE, Courier
from notifier.webhooks.delivery import Delivery, is_eligible
from notifier.webhooks.receiver import DEADLINE, Receivers
from notifier.webhooks.standing import Standings

_SWEEP_EVERY: Final = 5.0
_PRUNE_EVERY: Final = 30.0

log = get_logger()


@asynccontextmanager
async def open_webhooks(settings: WebhookDeliverySettings, daemon: Daemon) -> AsyncIterator[None]:
    """Add the courier of messages to webhooks, and its maintenance."""
    if not settings.shared.keys:
        log.warning("webhooks.idle", reason="there is no WEBHOOK_KEY")
        yield
        return
    # the last message of a lane may begin when the first one's deadline has passed
    pipeline = Pipeline(daemon, webhook_deliveries, deadline=2 * DEADLINE)
    outbox = pipeline.outbox(Delivery, eligible=is_eligible())
    standings = Standings(
        daemon.database,
        first_pause=settings.retry_delays[0],
        give_up_after=settings.give_up_after,
    )
    allow_private = settings.shared.allow_private
    async with open_session(allow_private=allow_private, connections=AT_ONCE) as session:
        courier = Courier(
            database=daemon.database,
            outbox=outbox,
            receivers=Receivers(session, allow_http=allow_private),
            standings=standings,
            box=SecretBox(settings.shared.keys),
            signal=pipeline.signal,
            retry_delays=settings.retry_delays,
        )
        resend = partial(maintenance.resend_doubtful, outbox)
        pipeline.maintain(resend, wait=0.0, metrics=metrics.WEBHOOK_OUTBOX)
        every = daemon.ticks.every
        every(_SWEEP_EVERY, "webhooks.give_up", standings.sweep)
        every(_SWEEP_EVERY, "webhooks.measure", partial(maintenance.measure, daemon.database))
        every(_PRUNE_EVERY, "webhooks.prune", partial(maintenance.prune, pipeline.maintenance))
        daemon.add_courier(courier, pipeline.signal, channel=WEBHOOKS)
        yield
