"""Hand-overs in doubt: look for proof that they arrived, else send them again.

A job that is sent again gets another delivery number, which is never a job's id and never used
twice. The first number from which a worker is heard wins (`common.jobs.updates`), so the job runs
once even if both copies arrived.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers
from common.jobs.updates import lock_job
from common.outbox.item import OutboxItem
from common.outbox.outbox import Outbox
from common.runtime.tasks import for_each
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.worker_api import Unknown, WorkerApi

_QUESTIONS_AT_ONCE: Final = 4
_ASK_AGAIN: Final = 10.0

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtfulHandover(OutboxItem):
    """A hand-over in doubt, without its payload."""

    job_id: int
    number: int


@dataclass(frozen=True, kw_only=True)
class Resender:
    """Settles hand-overs in doubt; `wait` is the grace period in seconds."""

    database: Database
    outbox: Outbox[DoubtfulHandover]
    worker_api: WorkerApi
    wait: float
    limit: int = 200

    async def sweep(self) -> int:
        """Settle up to `limit` doubts whose wait is over; returns how many will be sent again.

        If the peer can be asked, only as many are claimed at once as it is asked about at once,
        since a claim does not outlast many questions; the first missing answer ends the sweep.
        """
        resent = 0
        asks = self.worker_api.can_be_asked
        claimed_at_once = _QUESTIONS_AT_ONCE if asks else self.limit
        for _ in range(0, self.limit, claimed_at_once):
            items = await self.outbox.claim_doubtful(claimed_at_once)
            settle = self._ask if asks else self.renumber
            results = await for_each(items, settle, at_once=_QUESTIONS_AT_ONCE if asks else 1)
            resent += results.count(True)
            if len(items) < claimed_at_once or len(results) < len(items) or None in results:
                break
        return resent

    async def _ask(self, item: DoubtfulHandover) -> bool | None:
        """Settle one doubt by the peer's word; returns whether the job will be sent again, or None
        without an answer."""
        answer = await self.worker_api.ask_status(item.number)
        if answer is None:
            await self.outbox.postpone([item], min(self.wait, _ASK_AGAIN))
            return None
        if isinstance(answer, Unknown):
            return await self.renumber(item)
        await self.outbox.done([item])
        log.info("handover.found", job_id=item.job_id, number=item.number)
        return False

    async def renumber(self, item: DoubtfulHandover) -> bool:
        """Make one hand-over due again under another delivery number.

        Returns False if it is no longer in doubt: a worker was heard, or the user has deleted the
        job.
        """
        async with self.database.transaction() as tx:
            if await lock_job(tx, item.job_id) is None:
                return False
            if not await self.outbox.resend([item], tx):
                return False
            number = await _next_number(tx)
            await tx.execute(
                insert(handover_numbers).values(
                    number=number, job_id=item.job_id, created_at=utc_now()
                )
            )
            await tx.execute(
                update(handovers).where(handovers.c.id == item.id).values(number=number)
            )
        metrics.RESENDS.inc()
        log.warning(
            "handover.renumbered",
            job_id=item.job_id,
            before=item.number,
            number=number,
            correlation_id=item.correlation_id,
            doubts=item.doubts,
            reason=item.last_error,
        )
        return True


async def _next_number(tx: AsyncConnection) -> int:
    """The next value of the sequence of job ids."""
    if tx.dialect.name == "sqlite":
        statement = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'jobs' RETURNING seq"
    else:
        statement = "SELECT nextval(pg_get_serial_sequence('jobs', 'id'))"
    return int((await tx.execute(text(statement))).scalar_one())
