"""The dispatcher's periodic work: what is done how often."""

from dataclasses import dataclass
from typing import Final

from common.config.applications import Applications
from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.jobs.heartbeat import PEER, beat
from common.outbox.breaker import Gate, State
from common.outbox.maintenance import Upkeep
from common.outbox.outbox import Claimed, Outbox
from common.runtime.claim_loop import ClaimLoop
from common.runtime.periodic import Ticks
from common.storage.errors import StorageError
from common.storage.protocol import Storage
from common.telemetry.health import Health
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.deletions import DeletionSweep
from dispatcher.pace import Pace
from dispatcher.resend import resolve_doubts
from dispatcher.settings import Settings
from dispatcher.stalled import QuestionSweep, SilenceSweep
from dispatcher.worker_api import WorkerApi

PROBE_EVERY: Final = 4.0
"""Seconds between two looks whether the peer is there; 5 s are promised while it is away."""

_SWEEP_EVERY: Final = 1.0
_DELETIONS_EVERY: Final = 10.0
_BACKLOG_EVERY: Final = 5.0
_STAGING_EVERY: Final = 3_600.0
_PRUNE_EVERY: Final = 30.0
_BATCH: Final = 200
_PRUNE_BATCH: Final = 1_000
_PRUNE_BATCHES: Final = 50
_STUCK_AFTER: Final = 10.0

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class Housekeeping:
    """What the ticks work with."""

    settings: Settings
    database: Database
    storage: Storage
    worker_api: WorkerApi
    notifier: ChannelNotifier
    outbox: Outbox
    upkeep: Upkeep
    gate: Gate
    pace: Pace
    claim_loop: ClaimLoop[Claimed]
    health: Health
    applications: Applications

    async def sweep_leases(self) -> None:
        """Leases that ran out; that the database took it is the sign of a good tick."""
        count = await self.upkeep.doubt_expired(self.settings.handover_grace, _BATCH)
        metrics.RECONCILED.labels("lease_expired").inc(count)
        if self.claim_loop.turn_age < _STUCK_AFTER:
            self.health.tick()

    async def sweep_doubts(self) -> None:
        """Doubts whose wait is over."""
        wait = self.settings.handover_grace
        resent = await resolve_doubts(
            self.database, self.outbox, self.worker_api, wait=wait, limit=_BATCH
        )
        if resent:
            self.claim_loop.wake()

    async def heartbeat(self) -> None:
        """Vouch for database and peer while both answer.

        A peer may be away though the gate does not know it yet, since submissions take their time.
        """
        if self.gate.state is State.OPEN:  # it probes by itself
            return
        is_alive = await self.worker_api.is_alive()
        if not self.gate.is_reachable:
            return
        if is_alive:
            await beat(self.database, PEER)
        elif self.claim_loop.under_way == 0:  # else it may only be busy with us
            self.gate.unreachable()

    async def measure(self) -> None:
        """Gauges; those that the database is not asked for first, since it may be away."""
        metrics.LIMIT.set(self.pace.limit)
        for gate_state in State:
            metrics.GATE.labels(gate_state).set(gate_state is self.gate.state)
        backlog = await self.upkeep.backlog()
        for state in ("due", "waiting", "sending", "in_doubt", "held"):
            metrics.BACKLOG.labels(state).set(getattr(backlog, state))
        metrics.OLDEST_DUE.set(backlog.oldest_due_age)
        metrics.OLDEST.set(backlog.oldest_age)
        metrics.HELD.set(backlog.held)

    async def sweep_staging(self) -> None:
        """What uploads of killed gateways have left behind."""
        try:
            swept = await self.storage.sweep_staging()
        except StorageError as error:
            log.warning("staging.postponed", reason=str(error))
            return
        if swept:
            log.info("staging.swept", count=swept)

    async def prune(self) -> None:
        """Settled hand-overs that nobody needs any more."""
        for _ in range(_PRUNE_BATCHES):
            pruned = await self.upkeep.prune(self.settings.handover_retention, _PRUNE_BATCH)
            metrics.RECONCILED.labels("pruned").inc(pruned)
            if pruned < _PRUNE_BATCH:
                break


def add_ticks(ticks: Ticks, house: Housekeeping) -> None:
    """Schedule everything."""
    settings = house.settings
    silence = SilenceSweep(
        database=house.database,
        applications=house.applications,
        notifier=house.notifier,
        default_timeout=settings.silence_default_timeout,
        margin=settings.silence_margin,
    )
    questions = QuestionSweep(
        database=house.database,
        worker_api=house.worker_api,
        notifier=house.notifier,
        stale_after=settings.stale_after,
    )
    deletions = DeletionSweep(database=house.database, storage=house.storage)
    ticks.every(_SWEEP_EVERY, "leases", house.sweep_leases)
    ticks.every(_SWEEP_EVERY, "doubts", house.sweep_doubts)
    ticks.every(PROBE_EVERY, "heartbeat", house.heartbeat)
    ticks.every(settings.reconcile_interval, "silence", silence.sweep)
    ticks.every(settings.reconcile_interval, "questions", questions.sweep)
    ticks.every(_DELETIONS_EVERY, "deletions", deletions.sweep)
    ticks.every(_BACKLOG_EVERY, "backlog", house.measure)
    ticks.every(_PRUNE_EVERY, "prune", house.prune)
    ticks.every(_STAGING_EVERY, "staging", house.sweep_staging)
