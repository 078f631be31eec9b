"""Jobs whose worker has gone silent: ask the peer, or declare them in error after long enough.

Each tick is bounded and takes up where the last one stopped, so that no job keeps the others from
being looked at. What it writes is a compare-and-set on status and last update.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from common.config.applications import Applications, InvalidApplications
from common.database.engine import Database, utc_now
from common.database.notify import Notifier
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
_WITH_WORKER: Final = text("status IN ('pulled', 'preprocessing', 'running', 'postprocessing')")

log = get_logger()


@dataclass(slots=True)
class Cursor:
    """The last job id that a sweep has looked at; 0 at its start."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class Quiet:
    """A job that a worker has and that was not heard of for `seconds` while we listened."""

    job_id: int
    number: int
    status: Status
    last_seen_at: datetime | None
    seconds: float
    application: Mapping[str, Any]


async def quiet_jobs(
    database: Database, cursor: Cursor, *, seconds: float, limit: int
) -> list[Quiet]:
    """Up to `limit` jobs with a worker, silent for more than `seconds`; none during an outage."""
    async with database.reading() as connection:
        since = await listening_since(connection)
        if since is None:
            return []
        rows = await _read_quiet(connection, cursor.after, seconds, limit)
    cursor.after = rows[-1].id if len(rows) == limit else 0
    found = (_quiet(row, since) for row in rows)
    return [job for job in found if job.seconds > seconds]


async def _read_quiet(
    connection: AsyncConnection, after: int, seconds: float, limit: int
) -> Sequence[Any]:
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
            _WITH_WORKER,
            jobs.c.id > after,
            jobs.c.deleted_at.is_(None),
            or_(jobs.c.last_seen_at.is_(None), jobs.c.last_seen_at < utc_now(-seconds)),
        )
        .order_by(jobs.c.id)
        .limit(limit)
    )
    return (await connection.execute(statement)).all()


def _quiet(row: Any, since: datetime) -> Quiet:
    last_sign = max(row.last_seen_at or since, since)
    application = row.application if isinstance(row.application, dict) else {}
    return Quiet(
        job_id=row.id,
        number=row.id if row.worker_number is None else row.worker_number,
        status=Status.of_row(row.status),
        last_seen_at=row.last_seen_at,
        seconds=(row.now - last_sign).total_seconds(),
        application=application,
    )


async def _apply(
    database: Database, notifier: Notifier, job: Quiet, report: Report, *, heard: bool
) -> bool:
    """Apply `report` unless the job was heard of meanwhile; returns whether it was applied."""
    seen = (job.status, job.last_seen_at)
    applied = await updates.report(
        database, notifier, job.job_id, report, if_still=seen, heard=heard
    )
    return applied is not None


@dataclass(kw_only=True)
class SilenceSweep:
    """Sets jobs to `error` that were silent for longer than their application may take."""

    database: Database
    applications: Applications
    notifier: Notifier
    default_timeout: float
    margin: float
    limit: int = 100
    cursor: Cursor = field(default_factory=Cursor)

    async def sweep(self) -> int:
        """One tick; returns how many jobs were declared silent."""
        found = await quiet_jobs(self.database, self.cursor, seconds=self.margin, limit=self.limit)
        return sum(await for_each(found, self._look_at, at_once=1))

    async def _look_at(self, job: Quiet) -> bool:
        allowed = await self._timeout_of(job) + self.margin
        return job.seconds > allowed and await self._declare(job, allowed)

    async def _timeout_of(self, job: Quiet) -> float:
        try:
            timeout = await self.applications.timeout_of(job.application)
        except InvalidApplications:
            timeout = None
        return self.default_timeout if timeout is None else timeout

    async def _declare(self, job: Quiet, allowed: float) -> bool:
        sentence = (
            f"No sign of life from the worker for {_duration(job.seconds)}, which is longer than"
            f" the {_duration(allowed)} that this job may be silent."
        )
        report = Report(Status.ERROR, sentence, Source.RECONCILER)
        if not await _apply(self.database, self.notifier, job, report, heard=False):
            return False
        metrics.RECONCILED.labels("silent").inc()
        log.warning("job.declared_silent", job_id=job.job_id, seconds=round(job.seconds))
        return True


@dataclass(kw_only=True)
class QuestionSweep:
    """Asks the peer for jobs that were not heard of for `stale_after` seconds."""

    database: Database
    worker_api: WorkerApi
    notifier: Notifier
    stale_after: float
    limit: int = 100
    cursor: Cursor = field(default_factory=Cursor)
    denials: dict[int, int] = field(default_factory=dict)

    async def sweep(self) -> int:
        """One tick; returns how many jobs were asked for."""
        if not self.worker_api.can_be_asked:
            return 0
        found = await quiet_jobs(
            self.database, self.cursor, seconds=self.stale_after, limit=self.limit
        )
        await for_each(found, self._ask, at_once=_QUESTIONS_AT_ONCE)
        return len(found)

    async def _ask(self, job: Quiet) -> None:
        answer = await self.worker_api.ask_status(job.number)
        if answer is None:
            return
        if isinstance(answer, Unknown):
            await self._deny(job, answer)
            return
        self.denials.pop(job.job_id, None)
        report = Report(answer, None, Source.RECONCILER)
        await self._write(job, report, heard=True, kind="asked")

    async def _deny(self, job: Quiet, answer: Unknown) -> None:
        """A job that the peer denies, again and again, will not be heard of any more."""
        if len(self.denials) > 10_000:
            self.denials.clear()
        denials = self.denials[job.job_id] = self.denials.get(job.job_id, 0) + 1
        if denials < (_DENIALS_IF_PROVEN if answer.proven else _DENIALS_IF_NOT):
            return
        del self.denials[job.job_id]
        sentence = "The worker-facing API does not know this job any more."
        report = Report(Status.ERROR, sentence, Source.RECONCILER)
        await self._write(job, report, heard=False, kind="unknown_at_peer")

    async def _write(self, job: Quiet, report: Report, *, heard: bool, kind: str) -> None:
        if not await _apply(self.database, self.notifier, job, report, heard=heard):
            return
        metrics.RECONCILED.labels(kind).inc()
        log.info("job.reconciled", job_id=job.job_id, kind=kind, status=report.status)


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
