"""Files that appear together, on every kind of storage."""

import os
from pathlib import Path

import pytest

from common.storage.errors import OutOfSpace, PathConflict, StorageUnavailable
from common.storage.local import bundled
from common.storage.local.storage import LocalStorage
from common.storage.paths import RESERVED_USER_NAME
from common.storage.protocol import SmallFile
from common.storage.s3.upload import Multipart
from tests.integration.common.storage.conftest import MEBIBYTE, Tree, stream


def small(tree: Tree, *texts: str, content: bytes = b"new") -> list[SmallFile]:
    return [SmallFile(tree.path(text), content) for text in texts]


async def place(bundle, *directories):
    return [entry async for batch in bundle.place(directories) for entry in batch]


async def place_all(tree: Tree, files: list[SmallFile], *directories) -> None:
    async with tree.storage.bundle(tree.user) as bundle:
        await bundle.add(files)
        await place(bundle, *directories)


async def contents(tree: Tree) -> dict[str, bytes | None]:
    """Everything in the tree below `data`."""
    found = await tree.entries("data", recursive=True)
    return {one.path: None if one.is_directory else await tree.get(one.path) for one in found}


@pytest.fixture
async def before(tree: Tree) -> dict[str, bytes | None]:
    """What lies in the tree before a bundle comes."""
    await tree.put("data/a", b"older")
    await tree.put("data/deep/b", b"old")
    await tree.make("data/empty")
    return await contents(tree)


async def test_files_appear_together_in_their_order_and_replace_what_was_there(tree, before):
    large = os.urandom(9 * MEBIBYTE)
    async with tree.storage.bundle(tree.user) as bundle:
        await bundle.add(small(tree, "data/z", "data/a", "data/new/x/y"))
        await bundle.write(tree.path("data/new/large"), stream(large[:MEBIBYTE], large[MEBIBYTE:]))
        await bundle.add(small(tree, "data/deep/b", content=b""))
        await bundle.add([])
        assert await contents(tree) == before
        entries = await place(bundle, tree.path("data/made/deep/"), tree.path("data/empty/"))
    assert [(entry.path, entry.size, entry.replaced) for entry in entries] == [
        ("data/z", 3, 0),
        ("data/a", 3, 5),
        ("data/new/x/y", 3, 0),
        ("data/new/large", len(large), 0),
        ("data/deep/b", 0, 3),
    ]
    for entry in entries:
        assert (await tree.stat(entry.path)).etag == entry.etag
    found = await contents(tree)
    new = {"data/z": b"new", "data/a": b"new", "data/deep/b": b"", "data/new/": None}
    new |= {"data/new/x/": None, "data/new/x/y": b"new", "data/new/large": large}
    assert found == before | new | {"data/made/": None, "data/made/deep/": None}


async def test_a_bundle_that_is_not_placed_leaves_nothing(tree, before):
    async with tree.storage.bundle(tree.user) as bundle:
        await bundle.add(small(tree, "data/a", "data/new/b"))
        await bundle.write(tree.path("data/c"), stream(b"x" * MEBIBYTE))
    assert await contents(tree) == before


@pytest.mark.parametrize(
    ("path", "replaced"), [("data/a/below", "data/deep/b"), ("data/deep", "data/a")]
)
async def test_a_place_that_is_taken_is_refused_and_all_is_taken_back(tree, before, path, replaced):
    with pytest.raises(PathConflict):
        await place_all(tree, small(tree, replaced, "data/c", "data/new/dir/x", "data/d/e", path))
    assert await contents(tree) == before
    with pytest.raises(PathConflict):
        async with tree.storage.bundle(tree.user) as bundle:
            await bundle.write(tree.path(path), stream(b"x"))
    directories = (tree.path("data/new/"), tree.path("data/a/"))
    with pytest.raises(PathConflict):
        await place_all(tree, small(tree, "data/other/x"), *directories)
    assert await contents(tree) == before


async def test_what_others_put_in_the_place_of_a_file_is_not_taken_back(local):
    async with local.storage.bundle(local.user) as bundle:
        await bundle.add(small(local, "data/new/x", "data/new/y"))
        await anext(bundle.place([]))
        await local.put("data/new/x", b"of others")
    assert await contents(local) == {"data/new/": None, "data/new/x": b"of others"}


async def test_with_fsync_all_files_are_there(tmp_path: Path):
    async with LocalStorage(str(tmp_path), fsync=True) as storage:
        tree = Tree(storage)
        names = [f"data/{number}" for number in range(20)]
        async with storage.bundle(tree.user) as bundle:
            await bundle.add(small(tree, *names))
            assert [entry.path for entry in await place(bundle)] == names
        assert {await tree.get(name) for name in names} == {b"new"}


async def test_space_is_kept(tmp_path: Path):
    async with LocalStorage(str(tmp_path), min_free_bytes=1 << 60) as storage:
        tree = Tree(storage)
        with pytest.raises(OutOfSpace):
            async with storage.bundle(tree.user) as bundle:
                await bundle.add(small(tree, "data/a"))
    assert list((tmp_path / RESERVED_USER_NAME).iterdir()) == []


async def test_replaced_files_come_back_on_disks_without_links(local, monkeypatch):
    await local.put_all("data/a", "data/b/c")

    def no_links(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bundled.os, "link", no_links)
    with pytest.raises(PathConflict):
        await place_all(local, small(local, "data/a", "data/b"))  # the second is a directory
    assert await contents(local) == {"data/a": b"1", "data/b/": None, "data/b/c": b"1"}


async def test_staged_files_that_vanish_leave_nothing(local, tmp_path):
    async with local.storage.bundle(local.user) as bundle:
        await bundle.add(small(local, "data/new/a", "data/b"))
        (staged,) = (tmp_path / "root" / RESERVED_USER_NAME).iterdir()
        (staged / "tree/data/b").unlink()
        with pytest.raises(StorageUnavailable):
            await place(bundle)
    assert await contents(local) == {}


async def test_an_empty_directory_that_others_delete_meanwhile_leaves_nothing(local):
    async with local.storage.bundle(local.user) as bundle:
        await bundle.add(small(local, "data/new/a"))
        placing = bundle.place([local.path("data/new/empty/")])
        await anext(placing)
        await local.delete("data/new/")
        with pytest.raises(StorageUnavailable):
            await anext(placing)
    assert await contents(local) == {}


async def test_bundles_of_killed_processes_are_swept_once_they_are_old(local, tmp_path):
    staging = tmp_path / "root" / RESERVED_USER_NAME
    old, young = staging / "bundle-old", staging / "bundle-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(b"x")
    os.utime(old, (0, 0))
    assert await local.storage.sweep_staging() == 1
    assert list(staging.iterdir()) == [young]
    os.utime(young, (0, 0))
    assert await local.storage.sweep_staging() == 1


async def test_s3_that_fails_in_the_middle_keeps_nothing_new(s3, monkeypatch):
    await s3.put("data/a", b"old")
    complete = Multipart.complete

    async def fail_for_some(self, **condition):
        if self._request["Key"].endswith("/c"):
            raise StorageUnavailable("S3 does not answer")
        return await complete(self, **condition)

    monkeypatch.setattr(Multipart, "complete", fail_for_some)
    with pytest.raises(StorageUnavailable):
        await place_all(s3, small(s3, "data/a", "data/n/b", "data/n/c"), s3.path("data/made/"))
    assert await contents(s3) == {"data/a": b"old"}
