"""Stalled jobs, whose worker has gone silent: ask the peer, or set them to `error` after a while.

Each sweep is bounded and continues where the last one stopped, so that no job keeps the others from
their turn. It writes by a compare-and-set on status and last update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import or_, select, text

from common.config.applications import Applications
from common.config.catalogue import InvalidApplications
from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import jobs
from common.jobs import updates
from common.jobs.heartbeat import listening_since
from common.jobs.lifecycle import Report, Source, Status
from common.runtime.tasks import for_each
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.worker_api import Unknown, WorkerApi

_QUESTIONS_AT_ONCE: Final = 4
_DENIALS_IF_PROVEN: Final = 2
_DENIALS_IF_NOT: Final = 4

# spelled like the partial index's condition, which a list of parameters could not match
IS_WITH_WORKER: Final = text("status IN ('pulled', 'preprocessing', 'running', 'postprocessing')")

log = get_logger()


@dataclass(frozen=True, slots=True)
class StalledJob:
    """A job that a worker has, without an update for `seconds` in which updates could arrive."""

    job_id: int
    number: int
    status: Status
    last_seen_at: datetime | None
    seconds: float
    application: Mapping[str, Any]


@dataclass(kw_only=True)
class Sweep:
    """Finds stalled jobs, `limit` at a time; the next tick begins after the job id `after`."""

    database: Database
    notifier: ChannelNotifier
    limit: int = 100
    after: int = 0

    async def find(self, seconds: float) -> list[StalledJob]:
        """Jobs with a worker, silent for more than `seconds`; none during an outage."""
        statement = (
            select(
                jobs.c.id,
                jobs.c.worker_number,
                jobs.c.status,
                jobs.c.last_seen_at,
                jobs.c.application,
                utc_now().label("now"),
            )
            .where(
                IS_WITH_WORKER,
                jobs.c.id > self.after,
                jobs.c.deleted_at.is_(None),
                or_(jobs.c.last_seen_at.is_(None), jobs.c.last_seen_at < utc_now(-seconds)),
            )
            .order_by(jobs.c.id)
            .limit(self.limit)
        )
        async with self.database.reading() as connection:
            since = await listening_since(connection)
            if since is None:
                return []
            rows = (await connection.execute(statement)).all()
        self.after = rows[-1].id if len(rows) == self.limit else 0
        found = (_stalled(row, since) for row in rows)
        return [job for job in found if job.seconds > seconds]

    async def write(
        self,
        job: StalledJob,
        status: Status,
        details: str | None,
        *,
        kind: str,
        heard: bool = False,
    ) -> bool:
        """Report `status` unless the job was heard of meanwhile; returns whether it applied."""
        applied = await updates.report(
            self.database,
            self.notifier,
            job.job_id,
            Report(status, details, Source.RECONCILER),
            if_still=(job.status, job.last_seen_at),
            heard=heard,
        )
        if applied is not None:
            metrics.RECONCILED.labels(kind).inc()
        return applied is not None


def _stalled(row: Any, since: datetime) -> StalledJob:
    last_sign = max(row.last_seen_at or since, since)
    return StalledJob(
        job_id=row.id,
        number=row.id if row.worker_number is None else row.worker_number,
        status=Status.of_row(row.status),
        last_seen_at=row.last_seen_at,
        seconds=(row.now - last_sign).total_seconds(),
        application=row.application if isinstance(row.application, dict) else {},
    )


@dataclass(kw_only=True)
class StalledJobSweep(Sweep):
    """Sets jobs to `error` that were silent for longer than their application's time-out."""

    applications: Applications
    default_timeout: float
    margin: float

    async def sweep(self) -> int:
        """One tick; returns how many jobs were set to `error`."""
        return sum(await for_each(await self.find(self.margin), self._check, at_once=1))

    async def _check(self, job: StalledJob) -> bool:
        try:
            timeout = await self.applications.timeout_of(job.application)
        except InvalidApplications:
            timeout = None
        allowed = (self.default_timeout if timeout is None else timeout) + self.margin
        if job.seconds <= allowed:
            return False
        sentence = (
            f"No sign of life from the worker for {_duration(job.seconds)}, which is longer than"
            f" the {_duration(allowed)} that this job may be silent."
        )
        applied = await self.write(job, Status.ERROR, sentence, kind="silent", heard=False)
        if applied:
            log.warning("job.declared_silent", job_id=job.job_id, seconds=round(job.seconds))
        return applied


@dataclass(kw_only=True)
class QuestionSweep(Sweep):
    """Asks the peer about jobs without an update for `stale_after` seconds."""

    worker_api: WorkerApi
    stale_after: float
    denials: dict[int, int] = field(default_factory=dict)

    async def sweep(self) -> int:
        """One tick; returns how many jobs the peer was asked about."""
        if not self.worker_api.can_be_asked:
            return 0
        found = await self.find(self.stale_after)
        await for_each(found, self._ask, at_once=_QUESTIONS_AT_ONCE)
        return len(found)

    async def _ask(self, job: StalledJob) -> None:
        answer = await self.worker_api.ask_status(job.number)
        if isinstance(answer, Unknown):
            await self._deny(job, answer)
        elif answer is not None:
            self.denials.pop(job.job_id, None)
            await self._reconcile(job, answer, None, kind="asked", heard=True)

    async def _deny(self, job: StalledJob, answer: Unknown) -> None:
        """A job that the peer denies repeatedly gets no further updates."""
        if len(self.denials) > 10_000:
            self.denials.clear()
        denials = self.denials[job.job_id] = self.denials.get(job.job_id, 0) + 1
        if denials < (_DENIALS_IF_PROVEN if answer.proven else _DENIALS_IF_NOT):
            return
        del self.denials[job.job_id]
        sentence = "The worker-facing API does not know this job any more."
        await self._reconcile(job, Status.ERROR, sentence, kind="unknown_at_peer", heard=False)

    async def _reconcile(
        self,
        job: StalledJob,
        status: Status,
        details: str | None,
        *,
        kind: str,
        heard: bool = False,
    ) -> None:
        if await self.write(job, status, details, kind=kind, heard=heard):
            log.info("job.reconciled", job_id=job.job_id, kind=kind, status=status)


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
