"""The local disk only: links, staging, threads, descriptors."""

import asyncio
import errno
import gc
import os
import re
import shutil
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.storage.errors import (
    InvalidPath,
    NotFound,
    OutOfSpace,
    PathConflict,
    StorageUnavailable,
    StorageUnusable,
    TargetExists,
    UnusableName,
)
from common.storage.local import rename as local_rename
from common.storage.local import staging as local_staging
from common.storage.local.storage import LocalStorage
from common.storage.paths import PREDEFINED, RESERVED_USER_NAME, UserPath
from common.storage.protocol import Entry
from tests.integration.common.storage.conftest import MEBIBYTE, PREDEFINED_PATHS, Tree, read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def home(root: Path) -> Path:
    return root / "some-user"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that no user may reach, with a file in it, and that stays as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret.txt").write_bytes(b"secret")
    yield place
    assert os.listdir(place) == ["secret.txt"]
    assert (place / "secret.txt").read_bytes() == b"secret"


@pytest.fixture
def links(home: Path, outside: Path, local: Any) -> None:
    """Links out of the tree: a directory and a file."""
    (home / "data/dir").symlink_to(outside)
    (home / "data/file").symlink_to(outside / "secret.txt")


def staged(root: Path) -> list[str]:
    place = root / RESERVED_USER_NAME
    return sorted(os.listdir(place)) if place.exists() else []


def failing(reason: int) -> Any:
    """A system call that fails."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(reason, os.strerror(reason))

    return fail


def blocked(name: str, patch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Blocks a system call; returns an event that it has begun, and one that lets it continue."""
    call, begun, resume = getattr(os, name), threading.Event(), threading.Event()

    def block(*arguments: Any) -> Any:
        begun.set()
        resume.wait()
        return call(*arguments)

    patch.setattr(os, name, block)
    return begun, resume


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


# -- places -----------------------------------------------------------------------------
async def test_uri_spells_the_root_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for root in ("./link/../link//", "link", str(tmp_path / "link")):
        async with LocalStorage(root) as storage:
            await storage.ensure_user("some-user")
            uri = storage.uri(UserPath.parse("some-user", "data/x/"))
            assert uri == f"{root.rstrip('/')}/some-user/data/x"
    assert sorted(os.listdir(tmp_path / "real" / "some-user")) == list(PREDEFINED)


def test_root_must_be_given():
    with pytest.raises(ValueError, match="empty"):
        LocalStorage("")


async def test_files_and_directories_get_the_usual_permissions(local, home):
    await local.put("data/x/a.txt", b"1")
    umask = os.umask(0)
    os.umask(umask)
    assert (home / "data/x/a.txt").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (home / "data/x").stat().st_mode & 0o777 == 0o777 & ~umask


async def test_predefined_directory_that_was_removed_comes_back_on_demand(local, home):
    for name in PREDEFINED:
        (home / name).rmdir()
    assert await local.listing() == PREDEFINED_PATHS
    assert await local.listing("data") == []
    assert (await local.stat("log")).is_directory
    await local.put("config/x/a.txt", b"1")
    home.rename(home.with_name("gone"))
    assert await local.listing() == PREDEFINED_PATHS
    assert await local.listing("output", recursive=True) == []


# -- links and other things that are no files -----------------------------------------
async def test_links_are_not_listed(local, home, links):
    (home / "data/dangling").symlink_to("nowhere")
    assert await local.listing("data", recursive=True) == []
    assert await local.files_at("data", "data/dir", "data/file") == [[], None, None]
    assert await local.holds_files("data", "data/dir", "data/file") == [False, False, False]


@pytest.mark.parametrize("text", ["data/dir", "data/dir/", "data/file", "data/dir/secret.txt"])
async def test_links_lead_nowhere(local, links, text):
    for attempt in (local.stat, local.get, local.listing, partial(local.rename, target="log/x")):
        with pytest.raises(NotFound):
            await attempt(text)


@pytest.mark.parametrize("text", ["data/dir/new.txt", "data/dir/secret.txt", "data/dir/sub/new"])
async def test_nothing_is_written_through_a_link(local, links, text):
    await local.put_all("data/a.txt")
    for attempt in (local.put(text, b"new"), local.make(text), local.rename("data/a.txt", text)):
        with pytest.raises(PathConflict):
            await attempt


async def test_writing_onto_a_link_replaces_the_link(local, links):
    await local.put("data/file", b"new")
    assert await local.get("data/file") == b"new"


@pytest.mark.parametrize("text", ["data/dir", "data/dir/", "data/", "", "data/dir/secret.txt"])
async def test_deleting_never_follows_a_link(local, home, outside, links, text):
    (home / "data/sub").mkdir()
    (home / "data/sub/dir").symlink_to(outside)
    await local.delete(text)
    assert (home / "data/dir").is_symlink() == text.endswith("secret.txt")


async def test_users_directory_that_is_a_link_is_not_entered(local, root, outside):
    (root / "linked").symlink_to(outside)
    linked = type(local)(local.storage, "linked")
    for recursive in (False, True):
        with pytest.raises(NotFound):
            await linked.listing(recursive=recursive)
    await linked.delete("")
    with pytest.raises(NotFound):
        await linked.put("data/a.txt", b"1")


async def test_pipes_and_sockets_are_no_files_and_block_nothing(local, home, monkeypatch):
    os.mkfifo(home / "data/pipe")
    monkeypatch.chdir(home / "data")  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    assert await local.listing("data") == []
    for name in ("data/pipe", "data/socket"):
        for attempt in (local.stat, local.get):
            with pytest.raises(NotFound):
                await attempt(name)
        await local.delete(name)
    assert os.listdir(home / "data") == []


# -- odd names --------------------------------------------------------------------------
async def test_names_that_are_not_utf8_are_shown_with_a_replacement(local, home):
    directory = os.fsencode(home) + b"/data/caf\xe9"
    os.mkdir(directory)
    os.mknod(directory + b"/\xff.txt")
    assert await local.listing("data") == ["data/caf\ufffd/"]
    assert await local.listing("data", recursive=True) == [
        "data/caf\ufffd/",
        "data/caf\ufffd/\ufffd.txt",
    ]
    assert await local.holds_files("data") == [True]
    with pytest.raises(UnusableName, match=re.escape("data/caf\ufffd/\ufffd.txt")):
        await local.files_at("data")
    await local.delete("data/")
    await local.put_all("data/\ufffd.txt")  # the replacement character itself may be a name
    assert await local.files_at("data") == [["data/\ufffd.txt"]]


async def test_control_characters_in_names_break_no_listing(local, home):
    (home / "data/a\r\nb").write_bytes(b"1")
    assert await local.listing("data") == ["data/a\r\nb"]


async def test_name_too_long_for_the_disk_is_refused(local, monkeypatch):
    monkeypatch.setattr(os, "open", failing(errno.ENAMETOOLONG))
    with pytest.raises(InvalidPath):
        await local.put("data/a.txt", b"1")


# -- staging ----------------------------------------------------------------------------
async def test_upload_is_staged_until_it_is_whole(local, root, home):
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 2 * MEBIBYTE
        yield b"x" * 2 * MEBIBYTE
        assert len(staged(root)) == 1
        assert os.listdir(home / "data") == []

    entry = await local.storage.write(local.path("data/x/a.bin"), chunks())
    assert entry.size == 4 * MEBIBYTE


@pytest.mark.parametrize("writes_before", [0, 1, 3])
@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
async def test_full_disk_leaves_nothing(local, monkeypatch, reason, writes_before):
    write, calls = os.write, []

    def fill_up(fd, data):
        calls.append(len(data))
        if len(calls) > writes_before:
            raise OSError(reason, "full")
        return write(fd, data[: len(data) // 2])  # a disk that gets full writes less than asked

    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OutOfSpace):
        await local.put("data/new/a.bin", *[b"x" * MEBIBYTE] * 4)
    monkeypatch.undo()
    assert len(calls) > writes_before
    assert await local.listing("data", recursive=True) == []


async def test_error_while_putting_in_place_leaves_nothing(local, monkeypatch):
    monkeypatch.setattr(os, "replace", failing(errno.EIO))
    with pytest.raises(StorageUnavailable):
        await local.put("data/new/er/a.bin", b"x")
    assert await local.listing("data", recursive=True) == []


async def test_directory_that_appears_during_an_upload_is_a_conflict(local):
    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"
        await local.put("data/x/inside.txt", b"2")

    with pytest.raises(PathConflict):
        await local.storage.write(local.path("data/x"), chunks())
    assert await local.listing("data", recursive=True) == ["data/x/", "data/x/inside.txt"]


async def test_cancelled_write_waits_for_its_thread_and_leaves_nothing(local, monkeypatch):
    before = open_descriptors()
    writing, resume = blocked("write", monkeypatch)
    task = asyncio.create_task(local.put("data/a.bin", *[b"x" * MEBIBYTE] * 3))
    await asyncio.to_thread(writing.wait)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    task.cancel()  # an impatient caller
    resume.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_descriptors() <= before
    assert await local.listing("data") == []


async def test_cancelled_opening_closes_the_file(local, monkeypatch):
    await local.put_all("data/a.bin")
    gc.collect()  # else it may free meanwhile what earlier tests left
    before = open_descriptors()
    opened, resume = blocked("fstat", monkeypatch)
    task = asyncio.create_task(local.get("data/a.bin"))
    await asyncio.to_thread(opened.wait)
    assert open_descriptors() == before + 1
    task.cancel()
    resume.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert open_descriptors() <= before


async def test_leftovers_of_killed_uploads_are_swept_once_they_are_old(local, root, tmp_path):
    async with LocalStorage(str(tmp_path / "none")) as unused:
        assert await unused.sweep_staging() == 0
    await local.put_all("data/a.txt")
    for name in ("old", "young"):
        (root / RESERVED_USER_NAME / name).touch()
    os.utime(root / RESERVED_USER_NAME / "old", (1, 1))
    assert await local.storage.sweep_staging() == 1
    assert staged(root) == ["young"]
    os.utime(root / RESERVED_USER_NAME / "young", (1, 1))
    assert await local.storage.sweep_staging() == 1


async def test_deleted_directory_is_gone_at_once_and_swept_if_interrupted(local, root, monkeypatch):
    await local.put_all("data/x/a", "data/x/sub/b", "data/x/sub/deep/c")
    monkeypatch.setattr(local_staging, "discard", failing(errno.EIO))
    with pytest.raises(StorageUnavailable):
        await local.delete("data/x/")
    assert await local.listing("data", recursive=True) == []
    assert len(staged(root)) == 1
    monkeypatch.undo()
    assert await local.storage.sweep_staging() == 1


async def test_uploads_into_a_directory_that_is_being_deleted_end_one_way_or_the_other(local):
    async def upload(number: int) -> None:
        for turn in range(30):
            await local.put(f"data/x/y/{number}-{turn}", b"whole")

    async def delete() -> None:
        while not uploads.done():
            await local.delete("data/x/")

    uploads = asyncio.gather(*map(upload, range(4)))
    await asyncio.gather(delete(), uploads)
    for path in await local.listing("data", recursive=True):
        assert path.endswith("/") or await local.get(path) == b"whole"
    await local.delete("data/")
    await local.storage.sweep_staging()


@pytest.mark.parametrize("size", [10, 3 * MEBIBYTE])
async def test_fsync_covers_the_file_and_its_directory(local, tmp_path, monkeypatch, size):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    for fsync, expected in ((False, []), (True, [RESERVED_USER_NAME, "data"])):
        async with LocalStorage(str(tmp_path), fsync=fsync) as storage:
            await type(local)(storage).put("data/x/a", b"x" * size)
        assert [Path(path).parent.name for path in synced] == expected


# -- renaming ---------------------------------------------------------------------------
@pytest.mark.parametrize("has_links", [True, False])
async def test_target_that_appears_during_a_rename_is_not_replaced(
    local, home, monkeypatch, has_links
):
    await local.put("data/a.txt", b"new")
    await local.put("data/b.txt", b"old")
    monkeypatch.setattr(local_rename, "check_place", lambda root, path: None)
    if not has_links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(TargetExists):
        await local.rename("data/a.txt", "data/b.txt", replace=False)
    assert (await local.get("data/a.txt"), await local.get("data/b.txt")) == (b"new", b"old")
    await local.rename("data/a.txt", "data/x/c.txt", replace=False)
    assert await local.listing("data", recursive=True) == ["data/b.txt", "data/x/", "data/x/c.txt"]
    assert await local.get("data/x/c.txt") == b"new"


async def test_directory_that_appears_during_a_rename_is_a_conflict(local, monkeypatch):
    await local.make("data/old")
    await local.put("data/new/a.txt", b"1")
    monkeypatch.setattr(local_rename, "check_place", lambda root, path: None)
    with pytest.raises(PathConflict):
        await local.rename("data/old", "data/new")
    assert await local.listing("data") == ["data/new/", "data/old/"]


async def test_source_that_was_uploaded_anew_during_a_rename_stays(local, home, monkeypatch):
    link = os.link

    def replace_source(*args, **kwargs):
        link(*args, **kwargs)
        (home / "data/fresh").write_bytes(b"fresh")
        (home / "data/fresh").rename(home / "data/a.txt")

    await local.put("data/a.txt", b"old")
    monkeypatch.setattr(os, "link", replace_source)
    await local.rename("data/a.txt", "data/b.txt", replace=False)
    assert (await local.get("data/a.txt"), await local.get("data/b.txt")) == (b"fresh", b"old")


# -- reading ----------------------------------------------------------------------------
async def test_open_file_is_what_it_was_even_when_replaced_or_deleted(local):
    await local.put("data/a.bin", b"old" * MEBIBYTE)
    async with local.storage.open(local.path("data/a.bin")) as file:
        await local.put("data/a.bin", b"new")
        await local.delete("data/")
        assert await read(file) == b"old" * MEBIBYTE


async def test_reading_a_file_that_became_shorter_or_was_closed_is_an_error(local, home):
    await local.put("data/a.bin", b"x" * 100_000)
    async with local.storage.open(local.path("data/a.bin")) as file:
        os.truncate(home / "data/a.bin", 10)
        with pytest.raises(StorageUnavailable):
            await read(file)
    with pytest.raises(StorageUnavailable):
        await read(file)  # it is closed


# -- resources -------------------------------------------------------------------------
async def test_directory_of_thousands_of_files_is_listed_and_deleted_as_a_whole(local, home):
    (home / "data/many").mkdir()
    names = [f"data/many/{number:05}" for number in range(3_500)]
    for name in names:
        (home / name).touch()
    assert await local.listing("data/many") == names
    assert await local.listing("data/many", recursive=True) == names
    assert await local.files_at("data/many") == [names]
    await local.delete("data/many/")
    assert await local.listing("data") == []


async def test_depth_costs_no_descriptors(local, home):
    before = open_descriptors()
    deepest = await asyncio.to_thread(_nest, home / "data", 400)
    seen = 0
    async for entries in local.storage.walk(local.path("data"), batch=1):
        seen += len(entries)
        assert open_descriptors() < before + 8
    assert seen == 401
    assert await local.holds_files("data") == [True]
    await local.delete("data/")
    assert not deepest.exists()
    assert open_descriptors() <= before


def every_call(local: Any, text: str) -> list[Any]:
    """Calls of all methods with a path."""
    return [
        local.storage.ensure_user("another"),
        local.put(text, b"1"),
        local.stat(text),
        local.get(text),
        local.listing(text),
        local.storage.read_small([local.path(text)]),
        local.make(text),
        local.rename(text, "data/x/a.txt/b"),
        local.rename(text, "data/x", replace=False),
        local.files_at(text),
        local.holds_files(text),
        local.storage.presign_upload(local.path(text)),
        local.storage.health(),
    ]


async def test_no_descriptor_leaks(local, home):
    await local.put_all("data/x/a.txt")
    os.mkfifo(home / "data/pipe")

    async def try_everything() -> None:
        for text in ("data/x/a.txt", "data/x", "data/no/no", "data/pipe", "data/x/a.txt/b", ""):
            for call in every_call(local, text):
                await asyncio.gather(call, return_exceptions=True)
        async for _ in local.storage.walk(local.path("")):
            break

    await try_everything()
    gc.collect()  # else it may free meanwhile what earlier tests left
    before = open_descriptors()
    for _ in range(5):
        await try_everything()
    assert open_descriptors() <= before


async def test_many_cancellations_leak_nothing(local):
    await local.put("data/x/a.txt", b"1" * 100)
    before = open_descriptors()
    for turn in range(60):
        tasks = [
            asyncio.create_task(local.put(f"data/x/{turn}", b"x" * 10)),
            asyncio.create_task(local.put(f"data/y/{turn}", *[b"x" * MEBIBYTE] * 3)),
            asyncio.create_task(local.get("data/x/a.txt")),
            asyncio.create_task(local.listing("data", recursive=True)),
        ]
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert open_descriptors() <= before


async def test_upload_takes_constant_memory_and_gathers_small_chunks(local, monkeypatch):
    write, sizes = os.write, []
    monkeypatch.setattr(os, "write", lambda fd, data: (sizes.append(len(data)), write(fd, data))[1])

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(32 * 16):
            yield b"x" * 65_536

    tracemalloc.start()
    try:
        await local.storage.write(local.path("data/a.bin"), chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 32 * MEBIBYTE
    assert len(sizes) <= 33
    assert peak < 8 * MEBIBYTE


async def test_disk_is_never_touched_on_the_event_loops_thread(local, monkeypatch):
    threads = set()

    def record(call, *args, **kwargs):
        threads.add(threading.current_thread())
        return call(*args, **kwargs)

    for name in ("open", "stat", "scandir", "mkdir", "replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, partial(record, getattr(os, name)))
    for call in every_call(local, "data/x/b.txt"):
        await asyncio.gather(call, return_exceptions=True)
    await local.delete("")
    await local.storage.sweep_staging()
    monkeypatch.undo()
    assert threads
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("root", ["/proc/nope", "/etc/passwd", "/etc/passwd/below"])
async def test_a_root_that_cannot_be_is_no_missing_file(root):
    async with LocalStorage(root) as storage:
        tree = Tree(storage)
        for call in (
            storage.ensure_user("u"),
            tree.stat("data/a.txt"),
            tree.stat("data"),
            tree.get("data/a.txt"),
            tree.put("data/a.txt", b"1"),
            tree.make("data/x"),
            tree.entries(),
            tree.files_at("data/a.txt"),
            tree.rename("data/a", "data/b"),
            tree.delete("data/a"),
            storage.probe(write=True),
        ):
            with pytest.raises(StorageUnusable):
                await call
        assert (await storage.health())["ok"] is False
        assert await storage.has_tree("u") is False


async def test_a_root_that_became_a_file_is_no_missing_file(local, root):
    await local.put_all("data/a.txt")
    shutil.rmtree(root)
    root.touch()
    with pytest.raises(StorageUnusable):
        await local.get("data/a.txt")
    root.unlink()
    with pytest.raises(NotFound):
        await local.get("data/a.txt")


async def test_a_probe_leaves_nothing_and_creates_no_tree(local, root, home):
    await local.storage.probe(write=True)
    assert await local.storage.has_tree("some-user") is True
    assert await local.storage.has_tree("another") is False
    assert os.listdir(root / RESERVED_USER_NAME) == []
    assert sorted(os.listdir(root)) == [RESERVED_USER_NAME, "some-user"]


async def test_a_broken_disk_is_reported_without_its_path_and_never_raised(tmp_path):
    (tmp_path / "file").touch()
    async with LocalStorage(str(tmp_path / "file" / "root")) as storage:
        health = await storage.health()
        assert await storage.free_bytes() is None
    assert health["ok"] is False
    assert health["reason"]
    assert str(tmp_path) not in health["reason"]


def _nest(place: Path, depth: int) -> Path:
    """Nested directories with a file at the end, deeper than a path may be long."""
    fd = os.open(place, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 20, dir_fd=fd)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    return place / ("d" * 20)


# -- versions ---------------------------------------------------------------------------
@pytest.mark.parametrize("placed", [False, True], ids=["written", "appended"])
async def test_a_write_just_after_an_upload_changes_the_version(local, tmp_path, placed):
    file = tmp_path / "root" / "some-user" / "data" / "a.txt"
    for _ in range(50):  # the clock's ticks are some milliseconds apart
        entry = await (append_all if placed else Tree.put)(local, "data/a.txt", b"hello")
        with file.open("r+b") as opened:
            opened.write(b"world")
        assert (await local.stat("data/a.txt")).etag != entry.etag


@pytest.mark.parametrize("placed", [False, True], ids=["written", "appended"])
@pytest.mark.parametrize("coarseness", [10**9, None], ids=["seconds", "refused"])
async def test_where_times_are_coarse_a_version_may_stay_the_same(
    local, monkeypatch, placed, coarseness
):
    set_times = os.utime

    def coarse(file: Any, *, ns: tuple[int, int], **options: Any) -> None:
        if coarseness is None:
            raise OSError(errno.EPERM, "not here")
        set_times(file, ns=(ns[0] // coarseness * coarseness,) * 2, **options)

    monkeypatch.setattr(os, "utime", coarse)
    entry = await (append_all if placed else Tree.put)(local, "data/a.txt", b"hello")
    assert not entry.is_distinct


async def append_all(tree: Tree, text: str, content: bytes) -> Entry:
    staged = await tree.storage.stage(tree.path(text), len(content))
    async with tree.storage.append(staged, 0) as appender:
        await appender.write(content)
        await appender.settle()
    return await tree.storage.place(staged)
