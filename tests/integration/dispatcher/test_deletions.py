import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.config.settings import StorageSettings
from common.database.engine import Database, utc_now
from common.database.notify import ChannelNotifier
from common.database.tables import emails, handovers, job_events, jobs
from common.jobs.deletion import delete_job, mark_deleted
from common.storage.errors import StorageUnavailable
from common.storage.factory import open_storage
from common.storage.protocol import Storage
from dispatcher.deletions import DeletionSweep
from tests.support.records import add_handover, add_job, add_mail, change, rows

OUTPUTS = {"output": "output/train", "log": "log/train", "artifact": "artifact/train"}


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    settings = StorageSettings(kind="local", root=str(tmp_path / "trees"))
    async with open_storage(settings) as storage:
        yield storage


def write(tmp_path: Path, path: str) -> Path:
    file = tmp_path / "trees" / "ada" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("data")
    return file


async def interrupted_job(database: Database, seconds: float = 120.0, **values: Any) -> int:
    job_id = await add_job(database, **{"paths_out": OUTPUTS, **values})
    await change(database, jobs, job_id, deleted_at=utc_now(-seconds))
    return job_id


async def test_marking_a_job_takes_what_was_not_sent_and_is_recorded(database: Database) -> None:
    job_id = await add_mail(database, await add_handover(database))
    async with database.transaction() as tx:
        marked = await mark_deleted(tx, "ada", job_id)
    assert marked is not None
    assert marked.is_ours
    assert await rows(database, handovers) == await rows(database, emails) == []
    assert [row["source"] for row in await rows(database, job_events)] == ["user"]


@pytest.mark.parametrize("path", ["output", "output/", "", "..", "../eve/output/x", "data2/x"])
async def test_a_path_that_is_not_a_jobs_own_directory_is_left_alone(
    database: Database, storage: Storage, tmp_path: Path, path: str
) -> None:
    kept = [write(tmp_path, "output/other/file"), write(tmp_path, "../eve/output/x/file")]
    job_id = await add_job(database, paths_out={"output": path})
    assert await delete_job(database, ChannelNotifier(database), storage, "ada", job_id)
    assert all(file.exists() for file in kept)
    assert await rows(database, jobs) == []


async def test_an_interrupted_deletion_is_finished_by_the_sweep(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    await interrupted_job(database)
    under_way = await interrupted_job(database, 10.0)
    file = write(tmp_path, "output/train/file")
    assert await DeletionSweep(database=database, storage=storage).sweep() == 1
    assert not file.exists()
    assert [row["id"] for row in await rows(database, jobs)] == [under_way]


async def test_an_interrupted_deletion_is_finished_by_a_repeated_one(
    database: Database, storage: Storage
) -> None:
    job_id = await interrupted_job(database, 6.0)
    assert await delete_job(database, ChannelNotifier(database), storage, "ada", job_id)
    assert await rows(database, jobs) == []


async def test_two_deletions_at_once_are_one(database: Database, storage: Storage) -> None:
    job_id = await add_job(database, paths_out=OUTPUTS)
    deletions = [
        delete_job(database, ChannelNotifier(database), storage, "ada", job_id) for _ in range(5)
    ]
    assert True in await asyncio.gather(*deletions)
    assert await rows(database, jobs) == []


async def test_a_storage_that_is_away_postpones_the_deletion(
    database: Database, storage: Storage, monkeypatch: Any
) -> None:
    await interrupted_job(database)
    sweep = DeletionSweep(database=database, storage=storage)

    async def fail(_: object) -> None:
        raise StorageUnavailable("the storage did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", fail)
        assert await sweep.sweep() == 0
    assert await sweep.sweep() == 0  # its turn comes again after a minute
    assert len(await rows(database, jobs)) == 1
    sweep.age = -1.0  # whatever the resolution of the clock
    assert await sweep.sweep() == 1
