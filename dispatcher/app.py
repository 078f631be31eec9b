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
from common.outbox.peer_client import open_session
from common.outbox.pipeline import Pipeline
from common.runtime import daemon
from common.runtime.daemon import Daemon
from common.storage.factory import open_storage
from common.storage.startup import check_usable
from common.telemetry.redaction import Redaction
from dispatcher import maintenance, metrics
from dispatcher.forward import Forwarder, patience
from dispatcher.handover import Handover
from dispatcher.limit import AdaptiveConcurrencyLimit
from dispatcher.resend import DoubtfulHandover, Resender
from dispatcher.settings import Settings
from dispatcher.settlement import Settlement
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
    applications = Applications(settings.applications)
    try:
        async with (
            open_storage(settings.storage) as storage,
            open_session("dispatcher", connections=connections) as session,
        ):
            await check_usable(storage, settings.storage)
            worker_api = WorkerApi(
                session,
                settings.worker_api_url,
                settings.internal_key,
                timeout=settings.handover_timeout,
                status_path=settings.status_path,
                redaction=Redaction(settings.logs.secrets, encoded=True),
            )
            maintenance.add_sweeps(settings, daemon, storage, worker_api, applications)
            maintenance.add_usage(settings, daemon, storage)
            maintenance.add_key_pruning(daemon, settings.idempotency_retention)
            async with _add_handovers(settings, daemon, worker_api).probing():
                yield
    finally:
        await applications.close()


def _add_handovers(settings: Settings, daemon: Daemon, worker_api: WorkerApi) -> CircuitBreaker:
    """Everything that hands jobs over; returns the breaker, which has to probe the peer."""
    timeout, grace = settings.handover_timeout, settings.handover_grace
    pipeline = Pipeline(daemon, handovers, deadline=timeout)
    outbox = pipeline.laned_outbox(Handover, patience=patience(timeout))
    breaker = CircuitBreaker(
        "worker-facing API",
        probe=worker_api.is_alive,
        signal=pipeline.signal,
        gauge=metrics.BREAKER,
    )
    limit = AdaptiveConcurrencyLimit(settings.handover_concurrency, deadline=timeout)
    metrics.LIMIT.set_function(lambda: limit.current)
    consumer = Consumer(outbox, breaker, pipeline.signal)
    settlement = Settlement(
        database=daemon.database,
        outbox=outbox,
        consumer=consumer,
        notifier=daemon.notifier,
        signal=pipeline.signal,
        grace=grace,
    )
    forwarder = Forwarder(
        outbox=outbox,
        consumer=consumer,
        settlement=settlement,
        worker_api=worker_api,
        limit=limit,
        signal=pipeline.signal,
        patience=patience(timeout),
    )
    resender = Resender(
        database=daemon.database,
        outbox=pipeline.outbox(DoubtfulHandover),
        worker_api=worker_api,
        wait=grace,
    )
    pipeline.maintain(resender.sweep, wait=grace, metrics=metrics.OUTBOX)
    claim_loop = daemon.add_courier(forwarder, pipeline.signal, channel=HANDOVERS)
    maintenance.add_heartbeat(daemon, worker_api, breaker, claim_loop)
    maintenance.add_pruning(daemon, pipeline.maintenance, settings.handover_retention)
    daemon.health.add_check("peer", breaker.check)
    return breaker
