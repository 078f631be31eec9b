"""Digests of files that are gone do not stay for ever."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from common.config.settings import StorageSettings
from common.database.engine import Database, utc_now
from common.database.tables import file_digests
from common.digests.records import Noted, find_digests, note_digests
from common.storage.errors import AccessRefused, StorageUnavailable
from common.storage.factory import open_storage
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from dispatcher.digests import DigestSweep

WEEK = 7 * 86_400.0


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    settings = StorageSettings(kind="local", root=str(tmp_path / "trees"))
    async with open_storage(settings) as storage:
        await storage.ensure_user("ada")
        yield storage


@pytest.fixture
def sweep(database: Database, storage: Storage) -> DigestSweep:
    return DigestSweep(database=database, storage=storage)


async def noted(database: Database, storage: Storage, *paths: str) -> None:
    """Files of which digests are noted that were not looked at for more than a week."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"content"

    for path in paths:
        at = UserPath.parse("ada", path)
        entry = await storage.write(at, chunks())
        async with database.statement() as tx:
            await note_digests(tx, [Noted.of(at, entry.etag or "", "ab")])
    async with database.statement() as tx:
        await tx.execute(update(file_digests).values(checked_at=utc_now(-WEEK - 1)))


async def left(database: Database) -> list[str]:
    async with database.reading() as connection:
        paths = select(file_digests.c.path).order_by(file_digests.c.path)
        return list((await connection.execute(paths)).scalars())


async def test_those_of_files_that_are_gone_or_changed_are_forgotten(
    database: Database, storage: Storage, sweep: DigestSweep, tmp_path: Path
) -> None:
    await noted(database, storage, "data/kept", "data/x/gone", "data/changed", "data/a-directory")
    data = tmp_path / "trees" / "ada" / "data"
    await storage.delete(UserPath.parse("ada", "data/x/"))
    (data / "changed").write_bytes(b"longer than before")
    (data / "a-directory").unlink()
    (data / "a-directory").mkdir()
    assert await sweep.sweep() == 3
    assert await left(database) == ["data/kept"]
    (data / "kept").unlink()
    assert await sweep.sweep() == 0  # it was looked at just now


async def test_those_that_were_looked_at_within_a_week_cost_nothing(
    database: Database, storage: Storage, sweep: DigestSweep, tmp_path: Path
) -> None:
    await noted(database, storage, "data/gone")
    (tmp_path / "trees" / "ada" / "data" / "gone").unlink()
    async with database.statement() as tx:
        await tx.execute(update(file_digests).values(checked_at=utc_now(60 - WEEK)))
    assert await sweep.sweep() == 0
    assert await left(database) == ["data/gone"]


async def test_while_the_storage_is_away_nothing_is_forgotten_and_a_refusal_holds_up_nothing(
    database: Database,
    storage: Storage,
    sweep: DigestSweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await noted(database, storage, "data/gone", "data/refused")
    (tmp_path / "trees" / "ada" / "data" / "gone").unlink()
    stat = storage.stat

    async def away(path: UserPath) -> Entry:
        raise StorageUnavailable("it is away")

    async def refused(path: UserPath) -> Entry:
        if path.name == "refused":
            raise AccessRefused("not this one")
        return await stat(path)

    monkeypatch.setattr(storage, "stat", away)
    assert await sweep.sweep() == 0
    monkeypatch.setattr(storage, "stat", refused)
    assert await sweep.sweep() == 1
    assert await left(database) == ["data/refused"]


async def test_a_digest_is_only_found_for_its_user_and_version(database: Database) -> None:
    async with database.statement() as tx:
        await note_digests(
            tx, [Noted("ada", "data/a", "1", "aa"), Noted("bob", "data/a", "1", "bb")]
        )
        await note_digests(tx, [Noted("ada", "data/a", "2", "cc")])
    async with database.reading() as connection:
        assert await find_digests(connection, "ada", {"data/a": "1"}) == {}
        versions = {"data/a": "2", "data/b": "2", "data/\0": "2"}
        assert await find_digests(connection, "ada", versions) == {"data/a": "cc"}
        assert await find_digests(connection, "bob", {"data/a": "1"}) == {"data/a": "bb"}
        assert await find_digests(connection, "bob", {}) == {}
