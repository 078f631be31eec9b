"""Measurements of users' trees, beside the changes that are made meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from common.config.settings import StorageSettings
from common.database.engine import Database, utc_now
from common.database.tables import usage_changes, usage_uploads, user_usage
from common.storage.errors import StorageUnavailable
from common.storage.factory import open_storage
from common.storage.protocol import Storage
from common.usage.records import Change, Usage, mark_active, read_usage, record_changes
from devtools.waiting import eventually
from dispatcher import metrics
from dispatcher.usage import LeaseLost, UsageSweep
from tests.integration.dispatcher.conftest import Dispatch
from tests.support.dispatcher import hear
from tests.support.records import add_handover, add_job, rows

ADA = "ada"


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    settings = StorageSettings(kind="local", root=str(tmp_path / "trees"))
    async with open_storage(settings) as storage:
        yield storage


@pytest.fixture
def sweep(database: Database, storage: Storage) -> UsageSweep:
    return UsageSweep(database=database, storage=storage, interval=300.0)


def write(tmp_path: Path, path: str, size: int, user: str = ADA) -> Path:
    """A file that comes past the API, as workers' results do."""
    file = tmp_path / "trees" / user / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    return file


async def touch(database: Database, user: str = ADA, active_for: float = 0.0) -> None:
    async with database.transaction() as tx:
        await mark_active(tx, {user: active_for})


async def record(database: Database, size: int, began: float, ended: float = 0.0) -> None:
    async with database.transaction() as tx:
        await record_changes(tx, [Change(ADA, size, began, ended)])


async def usage(database: Database, user: str = ADA) -> Usage:
    async with database.reading() as connection:
        return await read_usage(connection, user)


async def row_of(database: Database, user: str = ADA) -> Any:
    (row,) = [row for row in await rows(database, user_usage) if row["user_id"] == user]
    return row


async def pass_time(database: Database, *columns: str) -> None:
    """Let these times of every user be a second ago."""
    async with database.transaction() as tx:
        await tx.execute(update(user_usage).values(dict.fromkeys(columns, utc_now(-1.0))))


async def test_nobody_is_measured_before_anything_happens(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    write(tmp_path, "output/x", 10)
    assert await sweep.sweep() == 0
    assert await usage(database) == Usage(0, None)


async def test_a_measurement_counts_what_came_past_the_api(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    write(tmp_path, "output/train/x", 10)
    write(tmp_path, "data/y", 5)
    await touch(database)
    assert await sweep.sweep() == 1
    measured = await usage(database)
    assert measured.bytes == 15
    assert isinstance(measured.measured_at, datetime)
    assert await sweep.sweep() == 0


async def test_a_change_that_a_measurement_includes_is_not_added_however_late_it_is_written(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    await record(database, 10, 500.0, 400.0)
    write(tmp_path, "data/x", 30)
    await touch(database)
    assert (await usage(database)).bytes == 10
    await sweep.sweep()
    assert await rows(database, usage_changes) == []
    await record(database, 20, 500.0, 400.0)
    assert (await usage(database)).bytes == 30


async def test_later_changes_are_added(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    write(tmp_path, "data/x", 30)
    await touch(database)
    await sweep.sweep()
    await asyncio.sleep(0.01)  # the resolution of SQLite's clock
    await record(database, 7, 0.0)
    await record(database, -2, 0.0)
    assert (await usage(database)).bytes == 35


class Changing:
    """A storage into which an upload comes during a measurement; `seen`: before it is over."""

    def __init__(self, database: Database, size: int, upload: int, *, seen: bool) -> None:
        self._database = database
        self._sizes = [size, size + upload]
        self._upload = upload
        self._seen = seen
        self.count = 0

    async def sizes(self, _: str) -> AsyncGenerator[tuple[int, int], None]:
        self.count += 1
        if self.count > 1:
            yield 1, self._sizes[1]
            return
        yield 1, self._sizes[0]
        await asyncio.sleep(0.01)
        await record(self._database, self._upload, 0.005)
        if self._seen:
            yield 1, self._upload


@pytest.mark.parametrize("seen", [False, True])
async def test_an_upload_during_a_measurement_has_it_repeated_at_once(
    database: Database, seen: bool
) -> None:
    storage: Any = Changing(database, 100, 7, seen=seen)
    sweep = UsageSweep(database=database, storage=storage, interval=300.0)
    await touch(database)
    assert await sweep.sweep() == 1
    assert (await usage(database)).bytes == (114 if seen else 107)
    await asyncio.sleep(0.01)
    await pass_time(database, "due_at")
    assert await sweep.sweep() == 1
    assert (await usage(database)).bytes == 107
    await pass_time(database, "due_at")
    assert await sweep.sweep() == 0
    assert storage.count == 2


async def test_after_a_second_look_a_quiet_user_is_not_due_any_more(
    sweep: UsageSweep, database: Database
) -> None:
    await touch(database)
    await sweep.sweep()
    assert (await row_of(database))["due_at"] is not None
    await pass_time(database, "due_at")
    assert await sweep.sweep() == 0
    assert (await row_of(database))["due_at"] is None


async def test_an_active_user_is_measured_again_after_the_interval_and_not_before(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    await touch(database, active_for=600.0)  # as for a presigned upload
    assert await sweep.sweep() == 1
    write(tmp_path, "data/posted", 11)
    await pass_time(database, "due_at")
    assert await sweep.sweep() == 0
    row = await row_of(database)
    assert row["due_at"] == row["rest_until"]
    await pass_time(database, "due_at", "rest_until")
    assert await sweep.sweep() == 1
    assert (await usage(database)).bytes == 11


async def test_activity_during_the_rest_is_looked_at_after_it(
    sweep: UsageSweep, database: Database
) -> None:
    await touch(database)
    await sweep.sweep()
    await pass_time(database, "due_at")
    await sweep.sweep()
    await touch(database)
    row = await row_of(database)
    assert row["due_at"] == row["rest_until"]


async def test_users_whose_jobs_workers_have_are_measured(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    await add_job(database, status="running")
    await add_job(database, status="running")
    await add_job(database, user_id="eve", status="queued")
    await add_job(database, user_id="eve", status="finished")
    write(tmp_path, "output/x", 9)
    await sweep.note_workers()
    await sweep.note_workers()
    assert await sweep.sweep() == 1
    assert (await usage(database)).bytes == 9


async def test_each_tree_is_measured_by_one_of_many_sweeps(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(12)]
    for user in users:
        write(tmp_path, "data/x", 3, user)
        await touch(database, user)
    sweeps = [
        UsageSweep(database=database, storage=storage, interval=300.0).sweep() for _ in range(4)
    ]
    assert sum(await asyncio.gather(*sweeps)) == 12
    assert [(await usage(database, user)).bytes for user in users] == [3] * 12


async def test_a_tree_that_is_held_is_taken_over_after_the_lease_and_the_slower_writes_nothing(
    sweep: UsageSweep, database: Database, tmp_path: Path
) -> None:
    write(tmp_path, "data/x", 3)
    await touch(database)
    slower = await sweep.claim()
    assert slower is not None
    assert await sweep.claim() is None
    await pass_time(database, "due_at")  # the lease has run out
    assert await sweep.sweep() == 1
    with pytest.raises(LeaseLost):
        await sweep.finish(slower, 1_000, 0.1)
    assert (await usage(database)).bytes == 3


async def test_a_storage_that_is_away_leaves_the_measurement_and_the_others_go_on(
    sweep: UsageSweep, database: Database, storage: Storage, tmp_path: Path, monkeypatch: Any
) -> None:
    sizes = storage.sizes

    async def fail(user: str) -> AsyncGenerator[tuple[int, int], None]:
        if user == ADA:
            raise StorageUnavailable("the storage does not answer")
        async for batch in sizes(user):
            yield batch

    write(tmp_path, "data/x", 3, "eve")
    await touch(database)
    await touch(database, "eve")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "sizes", fail)
        assert await sweep.sweep() == 1
    assert (await usage(database, "eve")).bytes == 3
    assert (await usage(database)).measured_at is None
    await pass_time(database, "due_at")
    await sweep.sweep()
    assert (await usage(database)).measured_at is not None


async def test_a_user_whose_name_no_directory_can_have_has_nothing(
    sweep: UsageSweep, database: Database
) -> None:
    await touch(database, "a/b")
    assert await sweep.sweep() == 1
    assert (await usage(database, "a/b")).bytes == 0


async def test_the_names_read_per_second_are_bounded(
    database: Database, storage: Storage, tmp_path: Path
) -> None:
    for number in range(20):
        write(tmp_path, f"data/{number}", 1)
    slow = UsageSweep(database=database, storage=storage, interval=300.0, names_per_second=100)
    await touch(database)
    began = asyncio.get_running_loop().time()
    await slow.sweep()
    assert asyncio.get_running_loop().time() - began >= 0.2


async def test_the_metrics_are_the_ages_of_the_oldest_measurement_and_of_the_oldest_due_one(
    sweep: UsageSweep, database: Database
) -> None:
    gauges = (metrics.USAGE_OLDEST, metrics.USAGE_OLDEST_DUE)
    await sweep.report()
    assert [gauge._value.get() for gauge in gauges] == [0.0, 0.0]
    await touch(database)
    await sweep.sweep()
    await pass_time(database, "measured_at")
    await sweep.report()
    age, overdue = (gauge._value.get() for gauge in gauges)
    assert 1.0 <= age < 60.0
    assert overdue == 0.0
    await pass_time(database, "due_at")
    await sweep.report()
    assert metrics.USAGE_OLDEST_DUE._value.get() >= 1.0


async def test_uploads_of_gateways_that_were_killed_are_forgotten(
    sweep: UsageSweep, database: Database
) -> None:
    async with database.transaction() as tx:
        for owner, age in (("old", 100.0), ("new", 0.0)):
            values = {"owner": owner, "user_id": ADA, "bytes": 1, "expires_at": utc_now(-age)}
            await tx.execute(usage_uploads.insert().values(values))
    await sweep.note_workers()
    assert [row["owner"] for row in await rows(database, usage_uploads)] == ["new"]


async def test_a_dispatcher_measures_by_itself(
    dispatch: Dispatch, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "user_data" / ADA / "output/x"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"12345")
    job_id = await add_handover(database)
    async with dispatch():
        await hear(database, job_id, "running")

        async def is_measured() -> bool:
            return (await usage(database)).bytes == 5

        await eventually(is_measured)
