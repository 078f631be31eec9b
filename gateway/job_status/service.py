"""Status updates from workers: cheap for keep-alives, patient during database outages."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import bindparam, select, union_all

from common.database.engine import Database, padded
from common.database.errors import DatabaseUnavailable
from common.database.notify import ChannelNotifier
from common.database.tables import MAX_JOB_ID, handover_numbers, jobs
from common.jobs.lifecycle import Report, Status, is_keep_alive
from common.jobs.updates import Applied, is_unseen, report_of_worker, touch
from common.runtime.batching import Batcher
from common.runtime.retry import retry
from common.telemetry.logs import get_logger
from common.usage.ledger import UsageLedger
from gateway.metrics import STATUS_UPDATES

_DATABASE_WAIT: Final = 5.0
"""Seconds for which an update waits for the database before the worker has to retry."""

_RETRY: Final = 0.3
"""Longest pause in seconds between two attempts."""

log = get_logger()


class UnknownNumber(Exception):
    """No job goes by this number, or no longer."""


_columns = (jobs.c.id, jobs.c.status, jobs.c.worker_number, is_unseen)

_look_up_statement = union_all(
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


class JobStatusService:
    """Applies workers' reports."""

    def __init__(
        self,
        database: Database,
        notifier: ChannelNotifier,
        *,
        touch_every: float,
        ledger: UsageLedger | None = None,
    ) -> None:
        """`touch_every`: minimum seconds between two refreshes of a job's `last_seen_at`, since
        keep-alives are more frequent. `ledger` notes whose files workers may have changed."""
        self._ledger = ledger
        self._database = database
        self._notifier = notifier
        self._touch_every = touch_every
        self._look_up: Batcher[int, Status | None] = Batcher(self._look_up_batch, limit=256)

    async def report(self, number: int, report: Report) -> None:
        """Apply a report made under `number`.

        Raises `UnknownNumber` when no job goes by that number, on which the peer stops the worker;
        `DatabaseUnavailable` when the database stays away.
        """
        if not 0 < number <= MAX_JOB_ID:
            raise self._unknown(number)
        report_once = partial(self._report_once, number, report)
        try:
            async with asyncio.timeout(_DATABASE_WAIT):
                await retry(report_once, on=DatabaseUnavailable, first=_RETRY, cap=_RETRY)
        except TimeoutError as error:
            STATUS_UPDATES.labels("unavailable").inc()
            raise DatabaseUnavailable("no answer for some seconds") from error

    async def _report_once(self, number: int, report: Report) -> None:
        status = await self._look_up(number)
        if status is not None and is_keep_alive(status, report):
            STATUS_UPDATES.labels("unchanged").inc()
            return
        applied = await report_of_worker(self._database, self._notifier, number, report)
        if applied is None:
            raise self._unknown(number)
        if applied.change.enters and self._ledger is not None:
            self._ledger.touch(applied.user_id)  # its worker writes, or has written, results
        STATUS_UPDATES.labels("applied").inc()
        _log_applied(applied, number, report)

    def _unknown(self, number: int) -> UnknownNumber:
        STATUS_UPDATES.labels("unknown").inc()
        log.info("status.unknown_job", number=number)
        return UnknownNumber(number)

    async def _look_up_batch(self, numbers: Sequence[int]) -> list[Status | Exception | None]:
        """Statuses of the jobs whose workers report under these numbers, read without a lock.

        None where only a read with a lock is conclusive: no worker has reported yet, or there is
        no such job. A standby that lags behind has no locks, so it never denies a job.
        """
        keys = padded(numbers)
        values = {"ids": keys, "numbers": keys, "unseen_for": self._touch_every}
        async with self._database.reading() as connection:
            rows = (await connection.execute(_look_up_statement, values)).all()
        known = {row.number: row for row in rows if row.worker_number == row.number}
        if unseen := [row.id for row in known.values() if row.is_unseen]:
            await touch(self._database, unseen, unseen_for=self._touch_every)
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
