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
from common.telemetry.redaction import Redaction
from dispatcher import maintenance, metrics
from dispatcher.forward import AdaptiveConcurrencyLimit, Forwarder, Handover
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
    async with (
        open_storage(settings.storage) as storage,
        _open_worker_api(settings) as worker_api,
        _open_applications(settings) as applications,
        _handing_over(settings, daemon, worker_api),
    ):
        maintenance.add_sweeps(settings, daemon, storage, worker_api, applications)
        yield


@asynccontextmanager
async def _open_applications(settings: Settings) -> AsyncIterator[Applications]:
    applications = Applications(settings.applications)
    try:
        yield applications
    finally:
        await applications.close()


@asynccontextmanager
async def _open_worker_api(settings: Settings) -> AsyncIterator[WorkerApi]:
    connections = settings.handover_concurrency + _SPARE_CONNECTIONS
    async with open_session("dispatcher", connections=connections) as session:
        yield WorkerApi(
            session,
            settings.worker_api_url,
            settings.internal_key,
            timeout=settings.handover_timeout,
            status_path=settings.status_path,
            redaction=Redaction(settings.logs.secrets, encoded=True),
        )


@asynccontextmanager
async def _handing_over(
    settings: Settings, daemon: Daemon, worker_api: WorkerApi
) -> AsyncIterator[None]:
    timeout, grace = settings.handover_timeout, settings.handover_grace
    pipeline = Pipeline(daemon, handovers, Handover, DoubtfulHandover, deadline=timeout)
    breaker = CircuitBreaker(
        "worker-facing API",
        probe=worker_api.is_alive,
        signal=pipeline.signal,
        gauge=metrics.BREAKER,
    )
    limit = AdaptiveConcurrencyLimit(settings.handover_concurrency, deadline=timeout)
    metrics.LIMIT.set_function(lambda: limit.limit)
    forwarder = Forwarder(
        database=daemon.database,
        outbox=pipeline.outbox,
        consumer=Consumer(pipeline.outbox, breaker, pipeline.signal),
        worker_api=worker_api,
        limit=limit,
        notifier=daemon.notifier,
        signal=pipeline.signal,
        grace=grace,
    )
    resender = Resender(
        database=daemon.database, doubts=pipeline.doubts, worker_api=worker_api, wait=grace
    )
    claim_loop = pipeline.add_courier(
        forwarder,
        channel=HANDOVERS,
        sweep_doubts=resender.sweep,
        wait=grace,
        metrics=metrics.OUTBOX,
    )
    maintenance.add_heartbeat(daemon, worker_api, breaker, claim_loop)
    maintenance.add_pruning(daemon, pipeline.maintenance, settings.handover_retention)
    daemon.health.add_check("peer", breaker.check)
    async with breaker.probing():
        yield
