"""The gauge of jobs that have not ended."""

from common.database.engine import Database, utc_now
from dispatcher.unfinished import measure_unfinished
from tests.support.metrics import metric
from tests.support.records import add_job


async def test_unfinished_jobs_are_counted_by_status(database: Database) -> None:
    for status in ("queued", "unheard of", "running", "running", "finished", "error"):
        await add_job(database, status=status)
    await add_job(database, status="running", deleted_at=utc_now())
    await measure_unfinished(database)
    counts = {
        status: metric("opencloud_jobs", status=status)
        for status in ("queued", "pulled", "preprocessing", "running", "postprocessing")
    }
    assert counts == {
        "queued": 2, "pulled": 0, "preprocessing": 0, "running": 2, "postprocessing": 0,
    }  # fmt: skip
