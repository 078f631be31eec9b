"""A database and a storage that do not belong together are noticed."""

from pathlib import Path
from typing import cast

from structlog.testing import capture_logs

from common.database.engine import Database
from common.jobs.trees import warn_of_missing_trees
from common.storage.errors import StorageUnavailable
from common.storage.local.storage import LocalStorage
from common.storage.protocol import Storage
from tests.support.records import add_job


async def warnings(database: Database, root: Path) -> list[tuple[str, int]]:
    """Place and number of users of each warning."""
    with capture_logs() as logs:
        async with LocalStorage(str(root)) as storage:
            await warn_of_missing_trees(database, storage, "there")
    return [(line["place"], line["users"]) for line in logs if line["event"] == "trees.missed"]


async def test_jobs_without_any_tree_of_their_users_are_warned_of(
    database: Database, tmp_path: Path
) -> None:
    for user in ("ada", "eve", "ada", "not/a/name"):
        await add_job(database, user_id=user)
    assert await warnings(database, tmp_path) == [("there", 3)]
    (tmp_path / "eve").mkdir()
    assert await warnings(database, tmp_path) == []


async def test_a_new_database_is_not_warned_of(database: Database, tmp_path: Path) -> None:
    assert await warnings(database, tmp_path) == []


async def test_an_outage_of_the_storage_is_no_missing_tree(database: Database) -> None:
    class Away:
        async def has_tree(self, _: str) -> bool:
            raise StorageUnavailable("away")

    await add_job(database)
    with capture_logs() as logs:
        await warn_of_missing_trees(database, cast("Storage", Away()), "there")
    assert logs == []
