"""What a quota counts: sizes that changes report, sizes of trees, space that stays free."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.storage.errors import OutOfSpace
from common.storage.local.storage import LocalStorage
from common.storage.paths import RESERVED_USER_NAME
from common.storage.protocol import SMALL_FILE
from tests.integration.common.storage.conftest import MEBIBYTE, Tree, stream


async def measured(tree: Tree) -> int:
    return sum([size async for _, size in tree.storage.sizes(tree.user)])


async def test_an_upload_reports_the_size_of_the_file_that_it_replaces(tree: Tree) -> None:
    assert (await tree.put("data/a", b"12345")).replaced == 0
    assert (await tree.put("data/a", b"12")).replaced == 5
    assert (await tree.put("data/a", b"1")).replaced == 2


async def test_a_rename_reports_the_size_of_the_file_that_it_replaces(tree: Tree) -> None:
    await tree.put("data/a", b"12345")
    assert (await tree.rename("data/a", "data/b")).replaced == 0
    await tree.put("data/a", b"123")
    assert (await tree.rename("data/a", "data/b")).replaced == 5
    assert (await tree.rename("data/b", "data/b")).replaced == 0
    assert await measured(tree) == 3


@pytest.mark.parametrize("path", ["data/x/", "data/", ""])
async def test_a_deletion_reports_the_size_of_what_it_removes(tree: Tree, path: str) -> None:
    for number in range(10):
        await tree.put(f"data/x/{number % 3}/deep/{number}", b"1" * number)
    assert await measured(tree) == 45
    assert await tree.storage.delete(tree.path("data/x/0/deep/9")) == 9
    assert await tree.storage.delete(tree.path(path)) == 36
    assert await tree.storage.delete(tree.path(path)) == 0
    assert await measured(tree) == 0


async def test_sizes_are_those_of_one_user_in_batches(tree: Tree) -> None:
    await tree.put("data/a", b"1" * 10)
    await Tree(tree.storage, "some-user-2").put("data/a", b"1" * 100)
    assert await measured(tree) == 10
    assert await measured(Tree(tree.storage, "unseen")) == 0


async def test_more_names_than_a_batch_are_counted(local: Tree, tmp_path: Path) -> None:
    for number in range(1_100):
        (tmp_path / f"root/some-user/data/{number}").write_bytes(b"12")
    (tmp_path / "root/some-user/data/link").symlink_to("/etc/passwd")
    batches = [batch async for batch in local.storage.sizes("some-user")]
    assert len(batches) == 2
    assert sum(size for _, size in batches) == 2_200


async def test_keys_that_no_path_addresses_count(s3: Tree, bucket: Any, prefix: str) -> None:
    for key in ("data//x", "data/../x", "data/x/"):
        bucket.put_object(Key=f"{prefix}/some-user/{key}", Body=b"12345")
    assert await measured(s3) == 15


# -- space that stays free ------------------------------------------------------------------------
class Disk:
    """A file system of 100 MiB, of which what is staged or stored below `root` is used."""

    SIZE = 100 * MEBIBYTE

    def __init__(self, root: Path) -> None:
        self._root = root
        self.least_free = self.SIZE

    def __call__(self, _: object) -> SimpleNamespace:
        files = (path for path in self._root.rglob("*") if path.is_file())
        free = self.SIZE
        for path in files:
            try:
                free -= path.stat().st_size
            except FileNotFoundError:
                continue
        self.least_free = min(self.least_free, free)
        return SimpleNamespace(f_bavail=free, f_frsize=1)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path / "root")
    monkeypatch.setattr(os, "fstatvfs", disk)
    return disk


async def endless(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MEBIBYTE):
        yield b"x" * MEBIBYTE
        await asyncio.sleep(0)


async def test_uploads_at_once_leave_what_must_stay_free(tmp_path: Path, disk: Disk) -> None:
    least = 60 * MEBIBYTE
    async with LocalStorage(str(tmp_path / "root"), min_free_bytes=least) as storage:
        tree = Tree(storage)
        results = await asyncio.gather(
            *(
                storage.write(tree.path(f"data/{number}"), endless(15 * MEBIBYTE))
                for number in range(4)
            ),
            return_exceptions=True,
        )
        assert any(isinstance(result, OutOfSpace) for result in results)
        disk(None)
        assert disk.least_free >= least
        stored = [result for result in results if not isinstance(result, BaseException)]
        assert await measured(tree) == len(stored) * 15 * MEBIBYTE
    assert list((tmp_path / "root" / RESERVED_USER_NAME).glob("*")) == []


@pytest.mark.parametrize("size", [1, SMALL_FILE, SMALL_FILE + 1])
async def test_a_file_that_would_take_what_must_stay_free_is_refused(
    tmp_path: Path, disk: Disk, size: int
) -> None:
    least = Disk.SIZE - size
    async with LocalStorage(str(tmp_path / "root"), min_free_bytes=least) as storage:
        tree = Tree(storage)
        await tree.put("data/fits", b"x" * size)
        await tree.delete("data/fits")
        with pytest.raises(OutOfSpace):
            await storage.write(tree.path("data/large"), stream(b"x" * size, b"x"))
        assert await measured(tree) == 0
