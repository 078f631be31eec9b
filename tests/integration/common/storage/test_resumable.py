"""Files that arrive in portions, on every kind of storage."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from common.storage.errors import (
    NotFound,
    OutOfSpace,
    PathConflict,
    StagedBytesLost,
    StagedFileBusy,
)
from common.storage.local.storage import LocalStorage
from common.storage.paths import RESERVED_USER_NAME
from common.storage.s3 import part_sizes
from tests.integration.common.storage.conftest import MEBIBYTE, Broken, Tree


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest parts that S3 takes."""
    monkeypatch.setattr(part_sizes, "PART_BYTES", 5 * MEBIBYTE)
    monkeypatch.setattr(part_sizes.PartSizes, "step", 5 * MEBIBYTE)


async def append(tree: Tree, staged, offset: int, content: bytes) -> int:
    """Append one portion, in two pieces; returns the offset that is safe then."""
    half = len(content) // 2
    async with tree.storage.append(staged, offset) as appender:
        await appender.write(bytearray(content[:half]))
        await appender.write(content[half:])
        await appender.settle()
        return appender.safe


@pytest.mark.parametrize(
    "ends",
    [
        [0],
        [1],
        [3, 10, 11],
        [MEBIBYTE, 2 * MEBIBYTE, 5 * MEBIBYTE, 5 * MEBIBYTE + 1],
        [11 * MEBIBYTE, 12 * MEBIBYTE],
        [15 * MEBIBYTE],
    ],
    ids=["empty", "byte", "small", "parts", "within", "whole"],
)
async def test_portions_become_a_file_with_the_last_one(tree, ends):
    content = os.urandom(ends[-1])
    staged = await tree.storage.stage(tree.path("data/new/a.bin"), len(content))
    begin = 0
    for end in ends:
        if end > begin:
            assert await append(tree, staged, begin, content[begin:end]) == end
        begin = end
        assert await tree.listing("data", recursive=True) == []
    entry = await tree.storage.place(staged)
    assert (entry.path, entry.size, entry.replaced) == ("data/new/a.bin", len(content), 0)
    assert (await tree.stat("data/new/a.bin")).etag == entry.etag
    assert await tree.get("data/new/a.bin") == content
    if content:
        with pytest.raises(NotFound):
            await tree.storage.place(staged)
    await tree.storage.abandon(staged)
    assert await tree.get("data/new/a.bin") == content


async def test_placing_replaces_a_file_and_says_of_which_size(tree):
    await tree.put("data/a.bin", b"older")
    staged = await tree.storage.stage(tree.path("data/a.bin"), 3)
    await append(tree, staged, 0, b"new")
    assert (await tree.storage.place(staged)).replaced == 5
    assert await tree.get("data/a.bin") == b"new"


async def test_bytes_behind_the_offset_count_as_never_written(tree):
    content = os.urandom(12 * MEBIBYTE)
    staged = await tree.storage.stage(tree.path("data/a.bin"), len(content))
    first = 7 * MEBIBYTE
    assert await append(tree, staged, 0, content[:first]) == first
    # two writers that are killed: one within the part, one beyond it
    await append(tree, staged, first, content[first : first + 1000])
    with suppress(Broken):
        async with tree.storage.append(staged, first) as appender:
            await appender.write(os.urandom(5 * MEBIBYTE))
            raise Broken
    assert await append(tree, staged, first, content[first:]) == len(content)
    await tree.storage.place(staged)
    assert await tree.get("data/a.bin") == content


async def test_safe_bytes_outlive_a_writer_that_does_not_settle(tree):
    content = os.urandom(11 * MEBIBYTE)
    staged = await tree.storage.stage(tree.path("data/a.bin"), len(content))
    with suppress(Broken):
        async with tree.storage.append(staged, 0) as appender:
            for begin in range(0, len(content) - MEBIBYTE, MEBIBYTE):
                await appender.write(content[begin : begin + MEBIBYTE])
            while (safe := appender.safe) < 5 * MEBIBYTE:
                await asyncio.sleep(0.01)
                await appender.write(b"")
            raise Broken
    assert 5 * MEBIBYTE <= safe < len(content)
    assert await append(tree, staged, safe, content[safe:]) == len(content)
    await tree.storage.place(staged)
    assert await tree.get("data/a.bin") == content


async def test_a_place_that_is_taken_is_refused_at_both_ends_and_can_be_freed(tree):
    await tree.put("data/file", b"1")
    for path in ("data/file/below", "data"):
        with pytest.raises(PathConflict):
            await tree.storage.stage(tree.path(path), 1)
    staged = await tree.storage.stage(tree.path("data/new"), 1)
    await append(tree, staged, 0, b"x")
    await tree.put("data/new/inside", b"1")
    with pytest.raises(PathConflict):
        await tree.storage.place(staged)
    await tree.delete("data/new/")
    await tree.storage.place(staged)
    assert await tree.get("data/new") == b"x"


async def test_an_abandoned_file_leaves_nothing_and_cannot_be_continued(tree):
    staged = await tree.storage.stage(tree.path("data/a.bin"), 10)
    await append(tree, staged, 0, b"12345")
    await tree.storage.abandon(staged)
    await tree.storage.abandon(staged)
    with pytest.raises(NotFound):
        await append(tree, staged, 5, b"67890")
    with pytest.raises(NotFound):
        await tree.storage.place(staged)


async def test_old_staged_files_stay_if_they_are_known(tree, monkeypatch):
    staged = await tree.storage.stage(tree.path("data/a.bin"), 10)
    await append(tree, staged, 0, b"12345")
    for module in ("local", "s3"):
        monkeypatch.setattr(f"common.storage.{module}.storage._STALE_AFTER", -60.0)
    asked = []

    async def known(names):
        asked.extend(names)
        return {staged.name}

    assert await tree.storage.sweep_staging(known) == 0
    assert asked == [staged.name]
    assert await append(tree, staged, 5, b"67890") == 10
    assert await tree.storage.sweep_staging() == 1
    await tree.storage.abandon(staged)


async def test_s3_keeps_one_beginning_of_a_part(s3, bucket, prefix):
    content = os.urandom(12 * MEBIBYTE)
    staged = await s3.storage.stage(s3.path("data/a.bin"), len(content))

    def kept() -> list[int]:
        below = f"{prefix}/{RESERVED_USER_NAME}/"
        return [item.size for item in bucket.objects.filter(Prefix=below)]

    await append(s3, staged, 0, content[: 3 * MEBIBYTE])
    assert kept() == [3 * MEBIBYTE]
    await append(s3, staged, 3 * MEBIBYTE, content[3 * MEBIBYTE : 6 * MEBIBYTE])
    assert kept() == [MEBIBYTE]
    await append(s3, staged, 6 * MEBIBYTE, content[6 * MEBIBYTE :])
    await s3.storage.place(staged)
    assert kept() == []
    assert await s3.get("data/a.bin") == content


async def test_s3_keeps_no_beginning_if_a_file_was_placed_by_a_process_that_was_killed(
    s3, bucket, prefix
):
    staged = await s3.storage.stage(s3.path("data/a.bin"), 3)
    await append(s3, staged, 0, b"123")
    below = f"{prefix}/{RESERVED_USER_NAME}/"
    bucket.Object(f"{below}{staged.name}/1").put(Body=b"12")
    multipart = s3.storage._staged._multipart(f"{prefix}/some-user/data/a.bin", staged.name)
    await multipart.find_parts()
    await multipart.complete()
    with pytest.raises(NotFound):
        await s3.storage.place(staged)
    assert list(bucket.objects.filter(Prefix=below)) == []


async def test_parts_that_s3_has_removed_end_an_upload(s3, monkeypatch):
    """As a rule of the bucket's life cycle does; moto answers such a request with 500."""
    staged = await s3.storage.stage(s3.path("data/a.bin"), 6 * MEBIBYTE)
    await append(s3, staged, 0, bytes(5 * MEBIBYTE))
    await s3.storage.abandon(staged)

    async def refuse(**request):
        facts = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
        raise ClientError(facts, "UploadPart")

    monkeypatch.setattr(s3.storage._bucket.client, "upload_part", refuse)
    with pytest.raises(NotFound):
        await append(s3, staged, 5 * MEBIBYTE, bytes(MEBIBYTE))


async def test_s3_refuses_what_is_larger_than_any_object_of_its_parts(s3):
    with pytest.raises(OutOfSpace):
        await s3.storage.stage(s3.path("data/a.bin"), part_sizes.LARGEST_FILE + 1)


async def test_a_second_writer_is_refused_while_one_is_open(local):
    staged = await local.storage.stage(local.path("data/a.bin"), 4)
    async with local.storage.append(staged, 0) as appender:
        await appender.write(b"12")
        await appender.settle()
        with pytest.raises(StagedFileBusy):
            await append(local, staged, 0, b"1234")
    assert await append(local, staged, 2, b"34") == 4
    await local.storage.place(staged)


async def test_bytes_that_a_disk_lost_are_noticed(local, tmp_path):
    staged = await local.storage.stage(local.path("data/a.bin"), 6)
    await append(local, staged, 0, b"123456")
    os.truncate(tmp_path / "root" / RESERVED_USER_NAME / staged.name, 3)
    with pytest.raises(StagedBytesLost):
        await append(local, staged, 6, b"")
    with pytest.raises(StagedBytesLost):
        await local.storage.place(staged)
    await local.storage.abandon(staged)


async def test_space_is_kept_at_each_write_and_what_came_before_stays(tmp_path: Path):
    async with LocalStorage(str(tmp_path), min_free_bytes=1 << 60) as full:
        tree = Tree(full)
        staged = await full.stage(tree.path("data/a.bin"), 4)
        with pytest.raises(OutOfSpace):
            await append(tree, staged, 0, b"1234")
    async with LocalStorage(str(tmp_path), fsync=True) as empty:
        assert await append(Tree(empty), staged, 0, b"1234") == 4
        assert (await empty.place(staged)).size == 4
