"""The dispatcher's application: its resources, its courier and its periodic work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web

from common.config.applications import Applications
from common.database.notify import HANDOVERS
from common.database.tables import handovers
from common.outbox.breaker import CircuitBreaker
from common.outbox.consumer import Consumer
from common.outbox.doubts import Doubts
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import LEASE_MARGIN, Outbox
from common.outbox.peer_client import open_session
from common.runtime import daemon
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import Daemon
from common.storage.factory import open_storage
from common.telemetry.redaction import Redaction
from dispatcher.forward import AdaptiveConcurrencyLimit, Forwarder, Handover
from dispatcher.maintenance import Maintenance, add_ticks
from dispatcher.resend import DoubtfulHandover, Resender
from dispatcher.settings import Settings
from dispatcher.worker_api import WorkerApi

_SPARE_CONNECTIONS: Final = 6  # probes and questions, beside the submissions


def create_app(settings: Settings) -> web.Application:
    """The dispatcher, which works while it serves its probes and metrics."""
    return daemon.create_app(
        "dispatcher",
        settings.database,
        partial(_open_parts, settings),
        shutdown_grace=settings.shutdown_grace,
    )


@asynccontextmanager
async def _open_parts(settings: Settings, daemon: Daemon) -> AsyncIterator[None]:
    connections = settings.handover_concurrency + _SPARE_CONNECTIONS
    async with (
        open_storage(settings.storage) as storage,
        open_session("dispatcher", connections=connections) as session,
    ):
        worker_api = WorkerApi(
            session,
            settings.worker_api_url,
            settings.internal_key,
            timeout=settings.handover_timeout,
            status_path=settings.status_path,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )
        signal = WorkSignal()
        breaker = CircuitBreaker("worker-facing API", probe=worker_api.is_alive, signal=signal)
        limit = AdaptiveConcurrencyLimit(
            settings.handover_concurrency, deadline=settings.handover_timeout
        )
        forwarder = _forwarder(settings, daemon, worker_api, breaker, limit, signal)
        applications = Applications(settings.applications)
        maintenance = Maintenance(
            settings=settings,
            daemon=daemon,
            storage=storage,
            worker_api=worker_api,
            outbox=OutboxMaintenance(daemon.database, handovers),
            resender=_resender(settings, daemon, worker_api),
            breaker=breaker,
            limit=limit,
            claim_loop=daemon.add_courier(forwarder, signal, channel=HANDOVERS),
            signal=signal,
        )
        add_ticks(maintenance, applications)
        daemon.health.add_check("peer", breaker.check)
        try:
            async with breaker.probing():
                yield
        finally:
            await applications.close()


def _forwarder(
    settings: Settings,
    daemon: Daemon,
    worker_api: WorkerApi,
    breaker: CircuitBreaker,
    limit: AdaptiveConcurrencyLimit,
    signal: WorkSignal,
) -> Forwarder:
    lease = settings.handover_timeout + LEASE_MARGIN
    outbox = Outbox(daemon.database, handovers, Handover, lease=lease)
    return Forwarder(
        database=daemon.database,
        outbox=outbox,
        consumer=Consumer(outbox, breaker, signal),
        worker_api=worker_api,
        limit=limit,
        notifier=daemon.notifier,
        signal=signal,
        grace=settings.handover_grace,
    )


def _resender(settings: Settings, daemon: Daemon, worker_api: WorkerApi) -> Resender:
    lease = settings.handover_timeout + LEASE_MARGIN
    return Resender(
        database=daemon.database,
        doubts=Doubts(daemon.database, handovers, DoubtfulHandover, lease=lease),
        worker_api=worker_api,
        wait=settings.handover_grace,
    )
