"""Resumable uploads that nobody goes on with."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from common.config.settings import StorageSettings
from common.database.engine import Database, utc_now
from common.database.tables import uploads, usage_changes
from common.storage.errors import PathConflict, StorageUnavailable
from common.storage.factory import open_storage
from common.storage.paths import UserPath
from common.storage.protocol import Storage
from common.uploads.records import (
    Upload,
    find_upload,
    insert_upload,
    known_names,
    release,
    renew,
    take_upload,
)
from dispatcher.uploads import UploadSweep


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    settings = StorageSettings(kind="local", root=str(tmp_path / "trees"))
    async with open_storage(settings) as storage:
        yield storage


@pytest.fixture
def sweep(database: Database, storage: Storage) -> UploadSweep:
    return UploadSweep(database=database, storage=storage)


async def begun(
    database: Database, storage: Storage, *, whole: bool = False, path: str = "data/a"
) -> Upload:
    """An upload of three bytes, of which two or all have arrived."""
    staged = await storage.stage(UserPath.parse("ada", path), 3)
    upload = await insert_upload(
        database,
        path,
        staged,
        sent_metadata="",
        expected_sha256=None,
        owner="me",
        retention=60.0,
    )
    async with storage.append(staged, 0) as appender:
        await appender.write(b"123" if whole else b"12")
        await appender.settle()
        received = appender.safe
    values: dict[str, Any] = {"received": received, "digest_state": b""}
    await renew(database, upload.id, "me", {**values, "sha256": "ab" if whole else None})
    await release(database, upload.id, "me")
    return upload


async def expire(database: Database, seconds: float = 1.0) -> None:
    async with database.transaction() as tx:
        await tx.execute(update(uploads).values(expires_at=utc_now(-seconds)))


async def found(database: Database, upload: Upload) -> Upload:
    there = await find_upload(database, "ada", upload.id)
    assert there is not None
    return there


def staged_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "trees" / ".opencloud-staging").glob("*"))


async def test_an_expired_upload_is_swept_and_remembered_for_a_while(
    database: Database, storage: Storage, sweep: UploadSweep, tmp_path: Path
) -> None:
    upload = await begun(database, storage)
    assert await sweep.sweep() == 0
    assert len(staged_files(tmp_path)) == 1
    await expire(database)
    assert await sweep.sweep() == 1
    assert staged_files(tmp_path) == []
    assert not (await found(database, upload)).is_alive
    assert await take_upload(database, "ada", upload.id, "me") is None
    assert await sweep.sweep() == 0
    sweep.remembered = -1.0  # whatever the resolution of the clock
    await sweep.sweep()
    assert await find_upload(database, "ada", upload.id) is None


async def test_a_writer_is_left_alone(
    database: Database, storage: Storage, sweep: UploadSweep, tmp_path: Path
) -> None:
    upload = await begun(database, storage)
    assert await take_upload(database, "ada", upload.id, "me") is not None
    await expire(database)
    assert await sweep.sweep() == 0
    await release(database, upload.id, "me")
    assert await sweep.sweep() == 1
    assert staged_files(tmp_path) == []


async def test_the_file_of_a_finished_upload_outlives_it(
    database: Database, storage: Storage, sweep: UploadSweep, tmp_path: Path
) -> None:
    upload = await begun(database, storage, whole=True)
    assert await sweep.sweep() == 1
    file = tmp_path / "trees" / "ada" / "data" / "a"
    assert file.read_bytes() == b"123"
    finished = await found(database, upload)
    assert finished.is_finished
    assert finished.etag == (await storage.stat(upload.staged.path)).etag
    async with database.reading() as connection:
        (size,) = (await connection.execute(select(usage_changes.c.bytes))).scalars()
    assert size == 3
    await expire(database)
    assert await sweep.sweep() == 1
    assert file.read_bytes() == b"123"


async def test_a_file_that_a_killed_process_has_placed_is_noted(
    database: Database, storage: Storage, sweep: UploadSweep
) -> None:
    upload = await begun(database, storage, whole=True)
    entry = await storage.place(upload.staged)
    assert await sweep.sweep() == 1
    assert (await found(database, upload)).etag == entry.etag


async def test_one_that_fails_holds_up_no_other(
    database: Database, storage: Storage, sweep: UploadSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("data/a", "data/b"):
        await begun(database, storage, path=path, whole=True)
    place, failures = storage.place, [PathConflict("taken")]

    async def failing(staged: Any) -> Any:
        if failures:
            raise failures.pop()
        return await place(staged)

    monkeypatch.setattr(storage, "place", failing)
    assert await sweep.sweep() == 1
    await expire(database)
    async with database.transaction() as tx:
        await tx.execute(update(uploads).values(owner=None, leased_until=None))
    failures.append(PathConflict("unused"))

    async def away(staged: Any) -> None:
        raise StorageUnavailable("away")

    monkeypatch.setattr(storage, "abandon", away)
    assert await sweep.sweep() == 1  # the finished one


async def test_names_of_uploads_that_can_go_on_are_known(
    database: Database, storage: Storage, sweep: UploadSweep
) -> None:
    upload = await begun(database, storage)
    name = upload.staged.name
    # more than a database takes as parameters of one statement
    others = [f"another-{number}" for number in range(260_000 if database.is_sqlite else 40_000)]
    assert await known_names(database, [*others, name]) == {name}
    await expire(database)
    await sweep.sweep()
    assert await known_names(database, [name]) == set()
