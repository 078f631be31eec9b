"""The notifier's application: its resources, its couriers and its periodic work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from common.database.notify import EMAILS
from common.database.tables import emails
from common.outbox.breaker import CircuitBreaker
from common.outbox.consumer import Consumer
from common.outbox.doubts import Doubts
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import LEASE_MARGIN, Outbox
from common.outbox.peer_client import open_session
from common.runtime import daemon
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import Daemon
from common.telemetry.logs import get_logger
from common.telemetry.redaction import Redaction
from notifier.deliver import Deliverer
from notifier.discard import Discarder
from notifier.lookup import Lookup
from notifier.mailjet import Mailjet
from notifier.maintenance import MailMaintenance
from notifier.messages import Mail
from notifier.settings import MailjetSettings, Settings

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
    lease = settings.send_timeout + LEASE_MARGIN
    outbox = Outbox(daemon.database, emails, Mail, lease=lease)
    doubts = Doubts(daemon.database, emails, Mail, lease=lease)
    if settings.mailjet is None:
        log.warning("mails.discarded", reason="no e-mail sender is configured")
        discarder = Discarder(outbox, doubts)
        _add_mails(settings, daemon, discarder, discarder, None, WorkSignal())
        yield
        return
    async with _open_mailjet(settings, settings.mailjet) as mailjet:
        signal = WorkSignal()
        breaker = CircuitBreaker("Mailjet", probe=mailjet.is_alive, signal=signal)
        deliverer = Deliverer(
            database=daemon.database,
            outbox=outbox,
            consumer=Consumer(outbox, breaker, signal),
            mailjet=mailjet,
            lookup_wait=settings.lookup_wait,
        )
        lookup = Lookup(doubts=doubts, mailjet=mailjet, wait=settings.lookup_wait)
        daemon.health.add_check("mailjet", breaker.check)
        _add_mails(settings, daemon, deliverer, lookup, breaker, signal)
        async with breaker.probing():
            yield


def _add_mails(
    settings: Settings,
    daemon: Daemon,
    courier: Deliverer | Discarder,
    doubts: Lookup | Discarder,
    breaker: CircuitBreaker | None,
    signal: WorkSignal,
) -> None:
    daemon.add_courier(courier, signal, channel=EMAILS)
    MailMaintenance(
        daemon=daemon,
        outbox=OutboxMaintenance(daemon.database, emails),
        breaker=breaker,
        doubts=doubts,
        lookup_wait=settings.lookup_wait,
        signal=signal,
    ).add_ticks()


@asynccontextmanager
async def _open_mailjet(settings: Settings, mailjet: MailjetSettings) -> AsyncIterator[Mailjet]:
    async with open_session("notifier", connections=_CONNECTIONS) as session:
        yield Mailjet(
            session,
            mailjet,
            timeout=settings.send_timeout,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )
