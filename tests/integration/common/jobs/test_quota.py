"""Which jobs count as under way."""

from common.database.engine import Database, utc_now
from common.jobs.lifecycle import Status
from common.jobs.quota import count_unfinished
from tests.support.records import add_job


async def test_jobs_count_until_they_end_or_are_deleted(database: Database) -> None:
    for status in Status:
        await add_job(database, status=status)
    await add_job(database, status="queued", deleted_at=utc_now())
    await add_job(database, status="queued", user_id="eve")
    async with database.reading() as connection:
        assert await count_unfinished(connection, "ada") == 5
        assert await count_unfinished(connection, "nobody") == 0
