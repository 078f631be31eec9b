"""Cancelling jobs on behalf of their user."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import select

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.database.tables import MAX_JOB_ID, jobs
from common.jobs.cancellation import Wish, cancel_jobs
from common.jobs.lifecycle import Cancellation
from common.telemetry.logs import get_logger
from gateway.identity import User
from gateway.jobs.errors import JobEnded, JobNotFound
from gateway.jobs.labels import Label, has_label
from gateway.metrics import CANCELLATIONS

log = get_logger()


class Cancelling:
    """Cancels jobs of one user at a time, who can name no others."""

    def __init__(self, database: Database, notifier: ChannelNotifier) -> None:
        self._database = database
        self._notifier = notifier

    async def one(self, user: User, job_id: int, reason: str | None) -> None:
        """Cancel a job. Raises `JobNotFound`, and `JobEnded` if it has ended otherwise."""
        ((_, result),) = (await self.many(user, [job_id], reason)).items()
        if result is Cancellation.NOT_FOUND:
            raise JobNotFound
        if result is Cancellation.ENDED:
            raise JobEnded

    async def many(
        self, user: User, job_ids: Collection[int], reason: str | None
    ) -> dict[int, Cancellation]:
        """Cancel jobs; what that came to for each of the ids, in their order."""
        wish = Wish(user.id, user.email or user.id, reason or None)
        results = dict.fromkeys(job_ids, Cancellation.NOT_FOUND)
        possible = [job_id for job_id in results if 0 < job_id <= MAX_JOB_ID]
        results |= await cancel_jobs(self._database, self._notifier, wish, possible)
        for job_id, result in results.items():
            CANCELLATIONS.labels(result).inc()
            log.info("job.cancel", job_id=job_id, result=result)
        return results

    async def of_label(
        self, user: User, label: Label, reason: str | None
    ) -> dict[int, Cancellation]:
        """Cancel the user's jobs with a label."""
        return await self._matching(user, has_label(user.id, label), reason)

    async def of_batch(
        self, user: User, batch_id: int, reason: str | None
    ) -> dict[int, Cancellation]:
        """Cancel the user's jobs of a batch."""
        if not 0 < batch_id <= MAX_JOB_ID:
            return {}
        return await self._matching(user, jobs.c.batch_id == batch_id, reason)

    async def _matching(
        self, user: User, condition: Any, reason: str | None
    ) -> dict[int, Cancellation]:
        own = (jobs.c.user_id == user.id, jobs.c.deleted_at.is_(None))
        statement = select(jobs.c.id).where(*own, condition).order_by(jobs.c.id)
        async with self._database.reading() as connection:
            found = list(await connection.scalars(statement))
        return await self.many(user, found, reason)
