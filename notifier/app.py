"""The notifier's application: its resources, its claim loop, and the ticks that keep house."""

from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from common.database.engine import Database
from common.database.notify import EMAILS, Listener
from common.database.tables import emails
from common.outbox.breaker import Gate
from common.outbox.consumer import Intake
from common.outbox.maintenance import Upkeep
from common.outbox.outbox import Outbox, new_owner
from common.outbox.peer_client import open_session
from common.runtime.claim_loop import ClaimLoop
from common.runtime.periodic import Ticks
from common.runtime.startup import open_database
from common.telemetry.health import Health, admin_routes
from common.telemetry.logs import get_logger
from common.telemetry.redaction import Redaction
from notifier.deliver import Batch, Deliverer
from notifier.discard import Discarder
from notifier.lookup import Lookup
from notifier.mailjet import Mailjet
from notifier.maintenance import Housekeeping, add_ticks
from notifier.settings import Settings

_LEASE_MARGIN: Final = 5.0
_POLL: Final = 1.0
_MAX_TICK_AGE: Final = 5.0
_REQUESTS_AT_ONCE: Final = 2
_CONNECTIONS: Final = 16  # requests, mails that are sent alone, look-ups
_TICK_GRACE: Final = 5.0

HEALTH: Final = web.AppKey("HEALTH", Health)
SETTINGS: Final = web.AppKey("SETTINGS", Settings)
DATABASE: Final = web.AppKey("DATABASE", Database)
OUTBOX: Final = web.AppKey("OUTBOX", Outbox)
CLAIM_LOOP: Final = web.AppKey("CLAIM_LOOP", ClaimLoop[Batch])
GATE: Final = web.AppKey("GATE", Gate)
MAILJET: Final = web.AppKey("MAILJET", Mailjet)

log = get_logger()


def create_app(settings: Settings) -> web.Application:
    """The notifier, which serves its probes and metrics and works while it does."""
    app = web.Application()
    app[SETTINGS] = settings
    app[HEALTH] = Health("notifier", max_tick_age=_MAX_TICK_AGE)
    app.add_routes(admin_routes(app[HEALTH]))
    app.cleanup_ctx.append(_database)
    if settings.mailjet is not None:
        app.cleanup_ctx.append(_mailjet)
    app.cleanup_ctx.extend([_delivery, _housekeeping])
    return app


async def drain(app: web.Application) -> None:
    """Claim nothing more, and finish what is under way within the grace period."""
    if CLAIM_LOOP in app:
        await app[CLAIM_LOOP].stop(app[SETTINGS].shutdown_grace)


async def _database(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_database(settings.database) as database:
        app[DATABASE] = database
        app[OUTBOX] = Outbox(
            database, emails, owner=new_owner(), lease=settings.send_timeout + _LEASE_MARGIN
        )
        app[HEALTH].add_check("database", database.ping)
        yield


async def _mailjet(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    assert settings.mailjet is not None
    async with open_session("notifier", connections=_CONNECTIONS) as session:
        mailjet = app[MAILJET] = Mailjet(
            session,
            settings.mailjet,
            timeout=settings.send_timeout,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )
        gate = app[GATE] = Gate("Mailjet", probe=mailjet.is_alive)
        app[HEALTH].add_check("mailjet", gate.describe)
        gate.start()
        yield
        await gate.stop()


async def _delivery(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    courier = _courier(app)
    claim_loop = app[CLAIM_LOOP] = ClaimLoop[Batch](
        slots=lambda: _REQUESTS_AT_ONCE - claim_loop.under_way,
        take=courier.take,
        deliver=courier.deliver,
        give_back=courier.give_back,
        poll=_POLL,
    )
    if GATE in app:
        app[GATE].on_change = claim_loop.wake
    listener = Listener(settings.database, EMAILS, claim_loop.woken)
    listener.start()
    claim_loop.start()
    yield
    await claim_loop.stop(settings.shutdown_grace)
    await listener.stop()


def _courier(app: web.Application) -> Deliverer | Discarder:
    if MAILJET not in app:
        log.warning("mails.discarded", reason="no e-mail sender is configured")
        return Discarder(app[OUTBOX])
    return Deliverer(
        database=app[DATABASE],
        outbox=app[OUTBOX],
        intake=Intake(app[OUTBOX], app[GATE]),
        mailjet=app[MAILJET],
        lookup_wait=app[SETTINGS].lookup_wait,
    )


async def _housekeeping(app: web.Application) -> AsyncIterator[None]:
    wait = app[SETTINGS].lookup_wait
    doubts: Lookup | Discarder = Discarder(app[OUTBOX])
    if MAILJET in app:
        doubts = Lookup(outbox=app[OUTBOX], mailjet=app[MAILJET], wait=wait)
    ticks = Ticks()
    house = Housekeeping(
        upkeep=Upkeep(app[DATABASE], emails),
        gate=app.get(GATE),
        doubts=doubts,
        lookup_wait=wait,
        claim_loop=app[CLAIM_LOOP],
        health=app[HEALTH],
    )
    add_ticks(ticks, house)
    ticks.start()
    yield
    app[HEALTH].draining = True
    await ticks.stop(_TICK_GRACE)
