"""The dispatcher's periodic work beside its outbox: what runs how often."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, delete, or_, select

from common.config.applications import Applications
from common.database.engine import Database, utc_now
from common.database.tables import idempotency_keys
from common.jobs.events import prune_deletions
from common.jobs.heartbeat import PEER, beat
from common.outbox.breaker import BreakerState, CircuitBreaker
from common.outbox.maintenance import OutboxMaintenance
from common.runtime.claim_loop import ClaimLoop
from common.runtime.daemon import Daemon
from common.storage.errors import StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from common.uploads.records import known_names
from dispatcher import metrics
from dispatcher.deletions import DeletionSweep
from dispatcher.digests import DigestSweep
from dispatcher.settings import Settings
from dispatcher.stalled import QuestionSweep, StalledJobSweep
from dispatcher.unfinished import measure_unfinished
from dispatcher.uploads import UploadSweep
from dispatcher.usage import UsageSweep
from dispatcher.worker_api import WorkerApi

PROBE_EVERY: Final = 4.0
"""Seconds between two probes of the peer; 5 s are promised while it is away."""

_DELETIONS_EVERY: Final = 10.0
_COUNT_EVERY: Final = 10.0
_UPLOADS_EVERY: Final = 10.0
_DIGESTS_EVERY: Final = 15.0
_STAGING_EVERY: Final = 3_600.0
_USAGE_EVERY: Final = 1.0
_USAGE_LANES: Final = 2
"""So that one huge tree holds up no other."""

_USAGE_REPORTED_EVERY: Final = 15.0
_WORKERS_NOTED_EVERY: Final = 30.0
_PRUNE_EVERY: Final = 30.0
_PRUNE_BATCH: Final = 1_000
_PRUNE_BATCHES: Final = 50
_DELETIONS_KEPT: Final = 3_600.0
"""Seconds for which streams, however slow, still learn of a job's deletion."""

log = get_logger()


def add_sweeps(
    settings: Settings,
    daemon: Daemon,
    storage: Storage,
    worker_api: WorkerApi,
    applications: Applications,
) -> None:
    """Schedule the sweeps over stalled jobs, interrupted deletions, abandoned uploads and digests
    of files that are gone, and the count of unfinished jobs."""
    stalled = StalledJobSweep(
        database=daemon.database,
        applications=applications,
        notifier=daemon.notifier,
        default_timeout=settings.silence_default_timeout,
        margin=settings.silence_margin,
    )
    questions = QuestionSweep(
        database=daemon.database,
        worker_api=worker_api,
        notifier=daemon.notifier,
        stale_after=settings.stale_after,
    )
    deletions = DeletionSweep(database=daemon.database, storage=storage)
    uploads = UploadSweep(database=daemon.database, storage=storage)
    digests = DigestSweep(database=daemon.database, storage=storage)

    async def sweep_staging() -> None:
        """Remove staged bytes of uploads whose gateway was killed."""
        try:
            swept = await storage.sweep_staging(partial(known_names, daemon.database))
        except StorageError as error:
            log.warning("staging.postponed", reason=str(error))
            return
        if swept:
            log.info("staging.swept", count=swept)

    daemon.ticks.every(settings.reconcile_interval, "silence", stalled.sweep)
    daemon.ticks.every(settings.reconcile_interval, "questions", questions.sweep)
    daemon.ticks.every(_DELETIONS_EVERY, "deletions", deletions.sweep)
    daemon.ticks.every(_UPLOADS_EVERY, "uploads", uploads.sweep)
    daemon.ticks.every(_DIGESTS_EVERY, "digests", digests.sweep)
    daemon.ticks.every(_STAGING_EVERY, "staging", sweep_staging)
    daemon.ticks.every(_COUNT_EVERY, "unfinished", partial(measure_unfinished, daemon.database))


def add_usage(settings: Settings, daemon: Daemon, storage: Storage) -> None:
    """Schedule the measurements of users' files, of which a few run at once."""
    usage = UsageSweep(database=daemon.database, storage=storage, interval=settings.usage_interval)
    for lane in range(_USAGE_LANES):
        daemon.ticks.every(_USAGE_EVERY, f"usage-{lane}", usage.sweep)
    noted_every = min(settings.usage_interval / 2, _WORKERS_NOTED_EVERY)
    daemon.ticks.every(noted_every, "usage-workers", usage.note_workers)
    daemon.ticks.every(_USAGE_REPORTED_EVERY, "usage-metrics", usage.report)


def add_heartbeat(
    daemon: Daemon, worker_api: WorkerApi, breaker: CircuitBreaker, claim_loop: ClaimLoop[Any]
) -> None:
    """Record that database and peer are healthy, while both answer."""

    async def heartbeat() -> None:
        if breaker.label == BreakerState.OPEN:  # it probes by itself
            return
        # the peer may be away before the breaker knows it, since submissions take their time
        is_alive = await worker_api.is_alive()
        if not breaker.is_reachable:
            return
        if is_alive:
            await beat(daemon.database, PEER)
        elif claim_loop.under_way == 0:  # else it may only be busy with our submissions
            breaker.unreachable()

    daemon.ticks.every(PROBE_EVERY, "heartbeat", heartbeat)


def add_pruning(daemon: Daemon, handovers: OutboxMaintenance, retention: float) -> None:
    """Remove hand-overs that were settled more than `retention` seconds ago, and what streams of
    events needed of deleted jobs."""

    async def prune() -> None:
        await _prune(partial(handovers.prune, retention))
        await _prune(partial(prune_deletions, daemon.database, _DELETIONS_KEPT))

    daemon.ticks.every(_PRUNE_EVERY, "prune", prune)


def add_key_pruning(daemon: Daemon, retention: float) -> None:
    """Remove idempotency keys that are older than `retention`."""

    async def prune() -> None:
        await _prune(partial(prune_keys, daemon.database, retention), kind="keys_pruned")

    daemon.ticks.every(_PRUNE_EVERY, "prune_keys", prune)


_keys: Final = idempotency_keys.c
_is_over: Final = or_(_keys.busy_until.is_(None), _keys.busy_until < utc_now())
_prune_key: Final = delete(idempotency_keys).where(
    _keys.user_id == bindparam("of_user"), _keys.key == bindparam("of_key"), _is_over
)


async def prune_keys(database: Database, age: float, limit: int) -> int:
    """Remove up to `limit` idempotency keys older than `age`, but those of requests under way;
    returns how many.

    One by one, since PostgreSQL would read the whole table for a join on two columns.
    """
    is_old = _keys.created_at < utc_now(-age)
    old = select(_keys.user_id.label("of_user"), _keys.key.label("of_key")).where(is_old, _is_over)
    async with database.reading() as connection:
        found = await connection.execute(old.order_by(_keys.created_at).limit(limit))
        keys = [dict(row) for row in found.mappings()]
    if keys:
        async with database.statement() as tx:
            await tx.execute(_prune_key.where(is_old), keys)
    return len(keys)


async def _prune(prune_batch: Callable[[int], Awaitable[int]], *, kind: str = "pruned") -> None:
    """Prune batch by batch, up to a bound."""
    for _ in range(_PRUNE_BATCHES):
        pruned = await prune_batch(_PRUNE_BATCH)
        metrics.RECONCILED.labels(kind).inc(pruned)
        if pruned < _PRUNE_BATCH:
            break
