"""How many jobs have not ended, by status: a count over an index that holds no others."""

from collections import Counter

from sqlalchemy import func, select, text

from common.database.engine import Database
from common.database.tables import jobs
from common.jobs.lifecycle import Status
from dispatcher import metrics

# spelled like the partial index's condition, which a list of parameters could not match
_COUNTS = (
    select(jobs.c.status, func.count().label("count"))
    .where(text("status NOT IN ('finished', 'error') AND deleted_at IS NULL"))
    .group_by(jobs.c.status)
)


async def measure_unfinished(database: Database) -> None:
    """Set the gauge of unfinished jobs. The cost does not depend on the number of ended ones."""
    async with database.reading() as connection:
        rows = (await connection.execute(_COUNTS)).all()
    counts: Counter[Status] = Counter()
    for status, count in rows:
        counts[Status.of_row(status)] += count
    for status in Status:
        if not status.is_final:
            metrics.UNFINISHED.labels(status).set(counts[status])
