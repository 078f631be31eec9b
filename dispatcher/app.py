"""The dispatcher's application: its resources, its claim loop, and the ticks that keep house."""

from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from common.config.applications import Applications
from common.database.engine import Database
from common.database.notify import HANDOVERS, Listener, Notifier
from common.database.tables import handovers
from common.outbox.breaker import Gate
from common.outbox.consumer import Intake
from common.outbox.maintenance import Upkeep
from common.outbox.outbox import Claimed, Outbox, new_owner
from common.outbox.peer_client import open_session
from common.runtime.claim_loop import ClaimLoop
from common.runtime.periodic import Ticks
from common.runtime.startup import open_database
from common.storage.factory import open_storage
from common.storage.protocol import Storage
from common.telemetry.health import Health, admin_routes
from common.telemetry.redaction import Redaction
from dispatcher.forward import Forwarder
from dispatcher.maintenance import Housekeeping, add_ticks
from dispatcher.pace import Pace
from dispatcher.settings import Settings
from dispatcher.worker_api import WorkerApi

_LEASE_MARGIN: Final = 5.0
_POLL: Final = 1.0
_POLL_SQLITE: Final = 0.5
_MAX_TICK_AGE: Final = 5.0
_SPARE_CONNECTIONS: Final = 6  # probes and questions, beside the submissions
_TICK_GRACE: Final = 5.0

HEALTH: Final = web.AppKey("HEALTH", Health)
SETTINGS: Final = web.AppKey("SETTINGS", Settings)
DATABASE: Final = web.AppKey("DATABASE", Database)
STORAGE: Final = web.AppKey("STORAGE", Storage)
WORKER_API: Final = web.AppKey("WORKER_API", WorkerApi)
NOTIFIER: Final = web.AppKey("NOTIFIER", Notifier)
OUTBOX: Final = web.AppKey("OUTBOX", Outbox)
GATE: Final = web.AppKey("GATE", Gate)
PACE: Final = web.AppKey("PACE", Pace)
CLAIM_LOOP: Final = web.AppKey("CLAIM_LOOP", ClaimLoop[Claimed])


def create_app(settings: Settings) -> web.Application:
    """The dispatcher, which serves its probes and metrics and works while it does."""
    app = web.Application()
    app[SETTINGS] = settings
    app[HEALTH] = Health("dispatcher", max_tick_age=_MAX_TICK_AGE)
    app.add_routes(admin_routes(app[HEALTH]))
    app.cleanup_ctx.extend(
        [_database, _storage, _worker_api, _notifier, _forwarding, _housekeeping]
    )
    return app


async def drain(app: web.Application) -> None:
    """Claim nothing more, and finish what is under way within the grace period."""
    if CLAIM_LOOP in app:
        await app[CLAIM_LOOP].stop(app[SETTINGS].shutdown_grace)


async def _database(app: web.Application) -> AsyncIterator[None]:
    async with open_database(app[SETTINGS].database) as database:
        app[DATABASE] = database
        app[HEALTH].add_check("database", database.ping)
        yield


async def _storage(app: web.Application) -> AsyncIterator[None]:
    async with open_storage(app[SETTINGS].storage) as storage:
        app[STORAGE] = storage
        yield


async def _worker_api(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    connections = settings.handover_concurrency + _SPARE_CONNECTIONS
    async with open_session("dispatcher", connections=connections) as session:
        app[WORKER_API] = WorkerApi(
            session,
            settings.worker_api_url,
            settings.internal_key,
            timeout=settings.handover_timeout,
            status_path=settings.status_path,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )
        yield


async def _notifier(app: web.Application) -> AsyncIterator[None]:
    app[NOTIFIER] = Notifier(app[DATABASE])
    yield
    await app[NOTIFIER].close()


async def _forwarding(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    database = app[DATABASE]
    lease = settings.handover_timeout + _LEASE_MARGIN
    outbox = app[OUTBOX] = Outbox(database, handovers, owner=new_owner(), lease=lease)
    pace = app[PACE] = Pace(settings.handover_concurrency, deadline=settings.handover_timeout)
    gate = app[GATE] = Gate("worker-facing API", probe=app[WORKER_API].is_alive)
    forwarder = Forwarder(
        database=database,
        outbox=outbox,
        intake=Intake(outbox, gate),
        worker_api=app[WORKER_API],
        pace=pace,
        notifier=app[NOTIFIER],
        grace=settings.handover_grace,
    )
    claim_loop = app[CLAIM_LOOP] = ClaimLoop[Claimed](
        slots=forwarder.slots,
        take=forwarder.take,
        deliver=forwarder.deliver,
        give_back=forwarder.give_back,
        poll=_POLL_SQLITE if database.is_sqlite else _POLL,
    )
    gate.on_change = claim_loop.wake
    forwarder.on_free_slot = claim_loop.slot_freed
    listener = Listener(settings.database, HANDOVERS, claim_loop.woken)
    app[HEALTH].add_check("peer", gate.describe)
    gate.start()
    listener.start()
    claim_loop.start()
    yield
    await claim_loop.stop(settings.shutdown_grace)
    await listener.stop()
    await gate.stop()


async def _housekeeping(app: web.Application) -> AsyncIterator[None]:
    ticks = Ticks()
    applications = Applications(app[SETTINGS].applications)
    add_ticks(
        ticks,
        Housekeeping(
            settings=app[SETTINGS],
            database=app[DATABASE],
            storage=app[STORAGE],
            worker_api=app[WORKER_API],
            notifier=app[NOTIFIER],
            outbox=app[OUTBOX],
            upkeep=Upkeep(app[DATABASE], handovers),
            gate=app[GATE],
            pace=app[PACE],
            claim_loop=app[CLAIM_LOOP],
            health=app[HEALTH],
            applications=applications,
        ),
    )
    ticks.start()
    yield
    app[HEALTH].draining = True
    await ticks.stop(_TICK_GRACE)
    await applications.close()
