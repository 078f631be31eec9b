"""The dispatcher's periodic work: what runs how often."""

from dataclasses import dataclass
from typing import Final

from common.config.applications import Applications
from common.jobs.heartbeat import PEER, beat
from common.outbox.breaker import BreakerState, CircuitBreaker
from common.outbox.maintenance import OutboxMaintenance
from common.runtime.claim_loop import ClaimLoop, WorkSignal
from common.runtime.daemon import Daemon
from common.storage.errors import StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.deletions import DeletionSweep
from dispatcher.forward import AdaptiveConcurrencyLimit, Handover
from dispatcher.resend import Resender
from dispatcher.settings import Settings
from dispatcher.stalled import QuestionSweep, StalledJobSweep
from dispatcher.worker_api import WorkerApi

PROBE_EVERY: Final = 4.0
"""Seconds between two probes of the peer; 5 s are promised while it is away."""

_SWEEP_EVERY: Final = 1.0
_DELETIONS_EVERY: Final = 10.0
_BACKLOG_EVERY: Final = 5.0
_STAGING_EVERY: Final = 3_600.0
_PRUNE_EVERY: Final = 30.0
_BATCH: Final = 200
_PRUNE_BATCH: Final = 1_000
_PRUNE_BATCHES: Final = 50

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Maintenance:
    """The ticks, and what they work with."""

    settings: Settings
    daemon: Daemon
    storage: Storage
    worker_api: WorkerApi
    outbox: OutboxMaintenance
    resender: Resender
    breaker: CircuitBreaker
    limit: AdaptiveConcurrencyLimit
    claim_loop: ClaimLoop[Handover]
    signal: WorkSignal

    async def sweep_leases(self) -> None:
        """Put hand-overs with an expired lease in doubt."""
        count = await self.outbox.doubt_expired(self.settings.handover_grace, _BATCH)
        metrics.RECONCILED.labels("lease_expired").inc(count)
        self.daemon.tick()

    async def sweep_doubts(self) -> None:
        """Settle doubts whose wait is over."""
        if await self.resender.sweep(_BATCH):
            self.signal.wake()

    async def heartbeat(self) -> None:
        """Record that database and peer are healthy, while both answer.

        The peer may be away before the breaker knows it, since submissions take their time.
        """
        if self.breaker.label == BreakerState.OPEN:  # it probes by itself
            return
        is_alive = await self.worker_api.is_alive()
        if not self.breaker.is_reachable:
            return
        if is_alive:
            await beat(self.daemon.database, PEER)
        elif self.claim_loop.under_way == 0:  # else it may only be busy with our submissions
            self.breaker.unreachable()

    async def measure(self) -> None:
        """Set the gauges; first those without the database, since it may be away."""
        metrics.LIMIT.set(self.limit.limit)
        metrics.OUTBOX.set_breaker(self.breaker.label)
        metrics.OUTBOX.set_backlog(await self.outbox.backlog())

    async def sweep_staging(self) -> None:
        """Remove staged bytes of uploads whose gateway was killed."""
        try:
            swept = await self.storage.sweep_staging()
        except StorageError as error:
            log.warning("staging.postponed", reason=str(error))
            return
        if swept:
            log.info("staging.swept", count=swept)

    async def prune(self) -> None:
        """Remove settled hand-overs past their retention."""
        for _ in range(_PRUNE_BATCHES):
            pruned = await self.outbox.prune(self.settings.handover_retention, _PRUNE_BATCH)
            metrics.RECONCILED.labels("pruned").inc(pruned)
            if pruned < _PRUNE_BATCH:
                break


def add_ticks(maintenance: Maintenance, applications: Applications) -> None:
    """Schedule everything."""
    settings, daemon = maintenance.settings, maintenance.daemon
    stalled = StalledJobSweep(
        database=daemon.database,
        applications=applications,
        notifier=daemon.notifier,
        default_timeout=settings.silence_default_timeout,
        margin=settings.silence_margin,
    )
    questions = QuestionSweep(
        database=daemon.database,
        worker_api=maintenance.worker_api,
        notifier=daemon.notifier,
        stale_after=settings.stale_after,
    )
    deletions = DeletionSweep(database=daemon.database, storage=maintenance.storage)
    every = daemon.ticks.every
    every(_SWEEP_EVERY, "leases", maintenance.sweep_leases)
    every(_SWEEP_EVERY, "doubts", maintenance.sweep_doubts)
    every(PROBE_EVERY, "heartbeat", maintenance.heartbeat)
    every(settings.reconcile_interval, "silence", stalled.sweep)
    every(settings.reconcile_interval, "questions", questions.sweep)
    every(_DELETIONS_EVERY, "deletions", deletions.sweep)
    every(_BACKLOG_EVERY, "backlog", maintenance.measure)
    every(_PRUNE_EVERY, "prune", maintenance.prune)
    every(_STAGING_EVERY, "staging", maintenance.sweep_staging)
