"""The S3 that keeps nothing, asked by the storage that the gateway uses."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from benchmarks.null_objects import NullObjects
from benchmarks.null_s3 import OBJECTS, create_app
from common.storage.errors import NotFound, StorageUnavailable
from common.storage.paths import PREDEFINED, UserPath
from common.storage.protocol import Entry
from common.storage.s3.storage import S3Storage
from deploy.sandbox.aws import environment

MIB = 1 << 20
SMALL = UserPath.parse("some-user", "data/x/small.bin")
LARGE = UserPath.parse("some-user", "data/x/large.bin")


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    async with TestServer(create_app()) as server:
        yield server


@pytest.fixture
def objects(server: TestServer) -> NullObjects:
    return server.app[OBJECTS]


@pytest.fixture
async def storage(server: TestServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Storage]:
    for name, value in environment(str(server.make_url("/")).rstrip("/")).items():
        monkeypatch.setenv(name, value)
    async with S3Storage("bench", region="eu-central-1", root="root") as storage:
        await storage.ensure_user("some-user")
        yield storage


async def ones(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, MIB):
        yield b"1" * min(MIB, size - start)


async def listing(storage: S3Storage, path: str, **options: Any) -> list[Entry]:
    found = storage.walk(UserPath.parse("some-user", path), recursive=False, **options)
    return [entry async for batch in found for entry in batch]


async def test_it_is_healthy_and_keeps_directories(storage: S3Storage) -> None:
    assert (await storage.health())["ok"]
    assert {entry.path for entry in await listing(storage, "")} == {
        f"{name}/" for name in PREDEFINED
    }


@pytest.mark.parametrize(("path", "size"), [(SMALL, 3), (LARGE, 20 * MIB + 5)])
async def test_a_file_of_any_size_is_listed_and_comes_back_as_zeros(
    storage: S3Storage, objects: NullObjects, path: UserPath, size: int
) -> None:
    written = await storage.write(path, ones(size))
    assert (written.size, objects.under_way) == (size, 0)
    [listed] = await listing(storage, "data/x")
    assert (listed.path, listed.size, listed.etag) == ("/".join(path.parts), size, written.etag)
    async with storage.open(path) as file:
        assert file.entry == listed
        read = b"".join([piece async for piece in file.read(0, size)])
    assert read == bytes(size)


async def test_a_range_is_as_long_as_it_was_asked_for(storage: S3Storage) -> None:
    await storage.write(SMALL, ones(MIB))
    async with storage.open(SMALL) as file:
        assert [piece async for piece in file.read(MIB - 10, 10)] == [bytes(10)]
        with pytest.raises(StorageUnavailable, match="InvalidRange"):
            [piece async for piece in file.read(MIB, 1)]


async def test_a_replaced_file_is_not_read_on(storage: S3Storage) -> None:
    await storage.write(SMALL, ones(3))
    async with storage.open(SMALL) as file:
        await storage.write(SMALL, ones(3))
        with pytest.raises(StorageUnavailable, match="PreconditionFailed"):
            [piece async for piece in file.read(0, 3)]


async def test_an_upload_that_breaks_off_leaves_nothing(
    storage: S3Storage, objects: NullObjects
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for piece in ones(20 * MIB):
            yield piece
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await storage.write(LARGE, broken())
    assert objects.under_way == 0
    with pytest.raises(NotFound):
        await storage.stat(LARGE)


async def test_files_are_moved_and_deleted(storage: S3Storage) -> None:
    await storage.write(SMALL, ones(3))
    moved = await storage.rename(SMALL, LARGE)
    assert (await storage.stat(LARGE)).size == moved.size == 3
    await storage.delete(LARGE)
    for path in (SMALL, LARGE):
        with pytest.raises(NotFound):
            await storage.stat(path)


@pytest.mark.parametrize("recursive", [False, True])
async def test_a_listing_of_several_pages_is_whole(storage: S3Storage, recursive: bool) -> None:
    for number in range(7):
        await storage.write(UserPath.parse("some-user", f"data/x/{number}/f"), ones(1))
    whole = [
        f"data/x/{number}/{name}" for number in range(7) for name in ("", "f")[: 1 + recursive]
    ]
    for batch in (2, 3, 1_000):
        found = storage.walk(
            UserPath.parse("some-user", "data/x"), recursive=recursive, batch=batch
        )
        assert [entry.path async for entries in found for entry in entries] == whole
    await storage.delete(UserPath.parse("some-user", "data/x/"))
    assert await listing(storage, "data") == []


async def test_unknown_uploads_are_refused(server: TestServer) -> None:
    place = server.make_url("/bench/key").with_query(uploadId="nobody's", partNumber="1")
    async with aiohttp.ClientSession() as session:
        for method in ("PUT", "POST"):
            async with session.request(method, place, data=b"part") as answer:
                assert answer.status == 404
