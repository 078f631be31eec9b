"""The notifier's application: its resources, its couriers and their maintenance.

Mails are never pruned: their rows make a mail per job and status unique. They go with their job.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from common.database.notify import EMAILS
from common.database.tables import emails
from common.notifications.links import UnsubscribeLinks
from common.outbox.breaker import BreakerState, CircuitBreaker, show_state
from common.outbox.consumer import Consumer
from common.outbox.peer_client import open_session
from common.outbox.pipeline import Pipeline
from common.runtime import daemon
from common.runtime.daemon import Daemon
from common.telemetry.logs import get_logger
from common.telemetry.redaction import Redaction
from notifier import metrics
from notifier.compose import Composer
from notifier.deliver import Deliverer
from notifier.discard import discard
from notifier.lookup import Lookup
from notifier.mailjet import Mailjet
from notifier.messages import Mail, Site
from notifier.settings import Settings
from notifier.webhooks.parts import open_webhooks

_CONNECTIONS: Final = 16  # requests, mails that are sent alone, look-ups

log = get_logger()


def create_app(settings: Settings) -> web.Application:
    """The notifier, which works while it serves its probes and metrics."""
    return daemon.create_app(
        "notifier",
        settings.database,
        partial(_open_parts, settings),
        shutdown_grace=settings.shutdown_grace,
    )


@asynccontextmanager
async def _open_parts(settings: Settings, daemon: Daemon) -> AsyncIterator[None]:
    async with _open_mails(settings, daemon), open_webhooks(settings.webhooks, daemon):
        yield


@asynccontextmanager
async def _open_mails(settings: Settings, daemon: Daemon) -> AsyncIterator[None]:
    pipeline = Pipeline(daemon, emails, deadline=settings.send_timeout)
    outbox = pipeline.outbox(Mail)
    maintain = partial(pipeline.maintain, wait=settings.lookup_wait, metrics=metrics.OUTBOX)
    if settings.mailjet is None:
        log.warning("mails.discarded", reason="no e-mail sender is configured")
        show_state(metrics.BREAKER, BreakerState.CLOSED)
        maintain(partial(discard, outbox))
        yield
        return
    async with open_session("notifier", connections=_CONNECTIONS) as session:
        mailjet = Mailjet(
            session,
            settings.mailjet,
            timeout=settings.send_timeout,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )
        breaker = CircuitBreaker(
            "Mailjet", probe=mailjet.is_alive, signal=pipeline.signal, gauge=metrics.BREAKER
        )
        deliverer = Deliverer(
            outbox=outbox,
            consumer=Consumer(outbox, breaker, pipeline.signal),
            mailjet=mailjet,
            composer=Composer(daemon.database, _site(settings)),
            lookup_wait=settings.lookup_wait,
        )
        lookup = Lookup(outbox=outbox, mailjet=mailjet, breaker=breaker, wait=settings.lookup_wait)
        maintain(lookup.sweep)
        daemon.add_courier(deliverer, pipeline.signal, channel=EMAILS)
        daemon.health.add_check("mailjet", breaker.check)
        async with breaker.probing():
            yield


def _site(settings: Settings) -> Site:
    links = UnsubscribeLinks(settings.notification_keys) if settings.notification_keys else None
    return Site(front_end=settings.front_end, public_url=settings.public_url, links=links)
