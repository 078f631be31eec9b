"""Hand-overs in doubt: look for proof that they arrived, else send them again.

Sent again, a job gets a fresh number, which is never a job's id and never used twice. The first
number from which a worker is heard wins (`common.jobs.updates`), so the job runs once even if both
copies arrived.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.tables import handover_numbers, handovers
from common.jobs.lifecycle import Status
from common.jobs.updates import lock_job
from common.outbox.outbox import IN_DOUBT, PENDING, Claimed, Outbox
from common.runtime.tasks import for_each
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.worker_api import Unknown, WorkerApi

_QUESTIONS_AT_ONCE: Final = 4
_ASK_AGAIN: Final = 10.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class Resent:
    """A hand-over that goes out again."""

    job_id: int
    before: int
    number: int


async def resolve_doubts(
    database: Database, outbox: Outbox, worker_api: WorkerApi, *, wait: float, limit: int
) -> int:
    """Settle up to `limit` doubts whose wait is over; returns how many will be sent again.

    Where the peer can be asked, as few are claimed at once as it is asked for, since a claim does
    not outlast many questions; where it does not answer, the others are not asked for now.
    """

    async def give_number(item: Claimed) -> bool:
        return await renumber(database, outbox, item) is not None

    resent = 0
    at_once = _QUESTIONS_AT_ONCE if worker_api.can_be_asked else limit
    for _ in range(0, limit, at_once):
        items = await outbox.claim_doubtful(at_once)
        unproven: Sequence[Claimed] = items
        all_told = True
        if worker_api.can_be_asked:
            unproven, all_told = await _ask_for(items, outbox, worker_api, wait)
        resent += sum(await for_each(unproven, give_number, at_once=1))
        if len(items) < at_once or not all_told:
            break
    return resent


async def _ask_for(
    items: Sequence[Claimed], outbox: Outbox, worker_api: WorkerApi, wait: float
) -> tuple[Sequence[Claimed], bool]:
    """Settle what the peer has; returns what it denies, and whether it told of all of them."""

    async def ask(item: Claimed) -> tuple[Claimed, Status | Unknown | None]:
        return item, await worker_api.ask_status(item.row["number"])

    answers = await for_each(items, ask, at_once=_QUESTIONS_AT_ONCE)
    told = 0
    denied = []
    for item, answer in answers:
        told += answer is not None
        if isinstance(answer, Status):
            await outbox.found(item)
            log.info("handover.found", job_id=item.job_id, number=item.row["number"])
        elif answer is None:
            await outbox.still_in_doubt(item, min(wait, _ASK_AGAIN), counts=False)
        else:
            denied.append(item)
    return denied, told == len(items)


async def renumber(database: Database, outbox: Outbox, item: Claimed) -> Resent | None:
    """Make one hand-over due again under a fresh number.

    None if it is no longer in doubt: a worker was heard, or the user has deleted the job.
    """
    async with database.transaction() as tx:
        if await lock_job(tx, item.job_id) is None:
            return None
        settled = await outbox.settle_in(tx, [item], IN_DOUBT, state=PENDING, due_at=utc_now())
        if not settled:
            return None
        number = await _fresh_number(tx)
        await tx.execute(
            insert(handover_numbers).values(number=number, job_id=item.job_id, created_at=utc_now())
        )
        await tx.execute(update(handovers).where(handovers.c.id == item.id).values(number=number))
    resent = Resent(item.job_id, item.row["number"], number)
    metrics.RESENDS.inc()
    log.warning(
        "handover.renumbered",
        job_id=resent.job_id,
        before=resent.before,
        number=resent.number,
        correlation_id=item.correlation_id,
        doubts=item.row["doubts"],
        reason=item.row["last_error"],
    )
    return resent


async def _fresh_number(tx: AsyncConnection) -> int:
    """The next value of the sequence from which job ids come."""
    if tx.dialect.name == "sqlite":
        statement = "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'jobs' RETURNING seq"
    else:
        statement = "SELECT nextval(pg_get_serial_sequence('jobs', 'id'))"
    return int((await tx.execute(text(statement))).scalar_one())
