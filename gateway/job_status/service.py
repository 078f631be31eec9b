"""Takes status updates in: cheap for keep-alives, patient while the database is away."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Float, bindparam, or_, select, true, union_all, update

from common.database.engine import Database, padded, utc_now
from common.database.errors import DatabaseUnavailable
from common.database.notify import EMAILS, ChannelNotifier
from common.database.tables import MAX_JOB_ID, handover_numbers, jobs
from common.jobs.lifecycle import Report, Status, is_keep_alive
from common.jobs.updates import Applied, apply_worker_report
from common.runtime.batching import Batcher
from common.telemetry.logs import get_logger
from gateway.http.errors import NotThere
from gateway.metrics import STATUS_UPDATES

_PATIENCE: Final = 5.0
"""Seconds to wait for a database that is away before the worker is told to come again."""

log = get_logger()


_stale = or_(
    jobs.c.last_seen_at.is_(None),
    jobs.c.last_seen_at < utc_now(bindparam("touch_after", type_=Float)),
).label("is_stale")

_columns = (jobs.c.id, jobs.c.status, jobs.c.worker_number, _stale)

_glance_statement = union_all(
    select(jobs.c.id.label("number"), *_columns).where(
        jobs.c.id.in_(bindparam("ids", expanding=True)), jobs.c.deleted_at.is_(None)
    ),
    select(handover_numbers.c.number, *_columns)
    .join_from(handover_numbers, jobs, handover_numbers.c.job_id == jobs.c.id)
    .where(
        handover_numbers.c.number.in_(bindparam("numbers", expanding=True)),
        jobs.c.deleted_at.is_(None),
    ),
)

_touch_statement = (
    update(jobs)
    .where(jobs.c.id.in_(bindparam("ids", expanding=True)), _stale.element == true())
    .values(last_seen_at=utc_now())
)


class JobStatusService:
    """Applies what workers report."""

    def __init__(
        self, database: Database, notifier: ChannelNotifier, *, touch_every: float
    ) -> None:
        """`touch_every`: seconds between two refreshments of a job's `last_seen_at`, since
        keep-alives come more often."""
        self._database = database
        self._notifier = notifier
        self._touch_after = -touch_every
        self._glance: Batcher[int, Status | None] = Batcher(self._glance_batch, limit=256)

    async def report(self, number: int, report: Report) -> None:
        """Apply a report made under `number`.

        Raises `NotThere` when no job goes by that number (any more), on which the peer stops the
        worker; `DatabaseUnavailable` when the database stays away.
        """
        if not 0 < number <= MAX_JOB_ID:
            raise self._unknown(number)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._report_once(number, report)
            except (DatabaseUnavailable, TimeoutError) as error:
                if loop.time() >= deadline:
                    STATUS_UPDATES.labels("unavailable").inc()
                    raise DatabaseUnavailable("no answer for some seconds") from error
                await asyncio.sleep(0.2)

    async def _report_once(self, number: int, report: Report) -> None:
        status = await self._glance(number)
        if status is not None and is_keep_alive(status, report):
            STATUS_UPDATES.labels("unchanged").inc()
            return
        async with self._database.transaction() as tx:
            applied = await apply_worker_report(tx, number, report)
        if applied is None:
            raise self._unknown(number)
        if applied.mail_due:
            self._notifier.notify(EMAILS)
        STATUS_UPDATES.labels("applied").inc()
        _log_applied(applied, number, report)

    def _unknown(self, number: int) -> NotThere:
        STATUS_UPDATES.labels("unknown").inc()
        log.info("status.unknown_job", number=number)
        return NotThere("Not Found")

    async def _glance_batch(self, numbers: Sequence[int]) -> list[Status | Exception | None]:
        """Statuses of the jobs whose workers go by these numbers, read without a lock.

        None where a lock has to tell: no worker was heard yet, or there is no such job. That is
        never said without a lock, which a standby that lags behind cannot give.
        """
        keys = padded(numbers)
        touch: dict[str, Any] = {"touch_after": self._touch_after}
        values = {"ids": keys, "numbers": keys, **touch}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_glance_statement, values)).all()
            known = {row.number: row for row in rows if row.worker_number == row.number}
            stale = [row.id for row in known.values() if row.is_stale]
        if stale:
            async with self._database.transaction() as tx:
                await tx.execute(_touch_statement, {"ids": padded(stale), **touch})
        return [
            Status.of_row(known[number].status) if number in known else None for number in numbers
        ]


def _log_applied(applied: Applied, number: int, report: Report) -> None:
    change = applied.change
    log.info(
        "status.changed" if change.enters else "status.noted",
        job_id=applied.job_id,
        number=number,
        correlation_id=applied.correlation_id,
        user_id=applied.user_id,
        before=applied.before,
        status=change.status,
        reported=report.status,
        confirmed_handover=applied.confirmed_handover,
    )
