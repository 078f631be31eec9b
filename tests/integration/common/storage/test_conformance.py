"""What `Storage` promises, on every kind of storage."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from common.storage import budget
from common.storage.errors import (
    DirectoryNotEmpty,
    InvalidPath,
    NotFound,
    PathConflict,
    PredefinedDirectory,
    StorageUnavailable,
    TargetExists,
    TooManyFiles,
)
from common.storage.paths import PREDEFINED, UserPath
from common.storage.protocol import SMALL_FILE, Blocks, Entry
from tests.integration.common.storage.conftest import MEBIBYTE, PREDEFINED_PATHS, Broken, read


# -- the tree ---------------------------------------------------------------------------
async def test_new_user_has_the_predefined_directories_only(tree):
    assert await tree.listing(recursive=True) == PREDEFINED_PATHS
    await tree.put_all("data/a.txt")
    await tree.storage.ensure_user(tree.user)
    assert await tree.listing("data") == ["data/a.txt"]


@pytest.mark.parametrize("user", ["", ".", "..", "a/b", "a\0b", ".opencloud-staging", "x" * 256])
async def test_user_name_that_cannot_be_a_directory_is_refused(tree, user):
    with pytest.raises(InvalidPath):
        await tree.storage.ensure_user(user)
    with pytest.raises(InvalidPath):
        await type(tree)(tree.storage, user).listing()


async def test_users_do_not_see_each_other(tree):
    await tree.put("data/a.txt", b"mine")
    other = type(tree)(tree.storage, "some-user-2")
    await other.storage.ensure_user(other.user)
    await other.put("data/a.txt", b"theirs")
    await other.delete("")
    assert await other.listing(recursive=True) == PREDEFINED_PATHS
    assert await tree.get("data/a.txt") == b"mine"


@pytest.mark.parametrize("directory", ["", *PREDEFINED])
async def test_predefined_directories_of_an_unseen_user_exist(tree, directory):
    unseen = type(tree)(tree.storage, "unseen")
    assert (await unseen.stat(directory)).is_directory
    expected = [] if directory else PREDEFINED_PATHS
    assert await unseen.listing(directory) == expected
    assert await unseen.listing(directory, recursive=True) == expected
    assert await unseen.files_at(directory) == [[]]
    assert await unseen.holds_files(directory) == [False]


# -- stat -------------------------------------------------------------------------------
async def test_stat_describes_files_and_directories(tree):
    await tree.put("data/x/a.txt", b"hello")
    entry = await tree.stat("data/x/a.txt")
    assert (entry.path, entry.size, entry.is_directory) == ("data/x/a.txt", 5, False)
    assert entry.etag
    assert '"' not in entry.etag
    assert entry.modified > 1_000_000_000
    assert await tree.stat("data/x") == await tree.stat("data/x/") == Entry("data/x/")


@pytest.mark.parametrize("text", ["data/te", "data/te/", "data/test/b", "nowhere", "data/test.txt"])
async def test_common_prefix_of_names_is_no_match(tree, text):
    await tree.put("data/test/a.txt", b"hello")
    with pytest.raises(NotFound):
        await tree.stat(text)


# -- listing ----------------------------------------------------------------------------
async def test_listing_shows_one_level_sorted_by_path(tree):
    await tree.put_all("data/x/b.txt", "data/x/sub/deep/c.txt", "data/x/sub-1/d", "data/x/a.txt")
    entries = await tree.entries("data/x", recursive=False)
    assert [entry.path for entry in entries] == [
        "data/x/a.txt",
        "data/x/b.txt",
        "data/x/sub-1/",
        "data/x/sub/",
    ]
    assert [entry.size for entry in entries] == [1, 1, None, None]
    assert entries[0] == await tree.stat("data/x/a.txt")


@pytest.mark.parametrize("text", ["data/a.txt", "data/a.txt/", "data/none", "nowhere/", "data/a"])
async def test_listing_what_is_no_directory_is_not_found(tree, text):
    await tree.put("data/a.txt", b"1")
    for options in ({}, {"recursive": True}, {"after": "data/a"}):
        with pytest.raises(NotFound):
            await tree.listing(text, **options)


ODD_ORDER = [
    "data/b/c/d.txt", "data/b/a.txt", "data/b-/x", "data/b0", "data/b.txt", "data/b/c!/x",
    "data/z/z/z/z", "data/\uffee/x", "data/\U0001f600", "data/é/é",
]  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
async def test_order_is_that_of_the_paths_and_each_directory_precedes_what_it_holds(tree, batch):
    await tree.put_all(*ODD_ORDER)
    await tree.make("data/empty")
    assert await tree.listing(batch=batch) == PREDEFINED_PATHS
    directories = {f"{path[:cut]}/" for path in ODD_ORDER for cut, c in enumerate(path) if c == "/"}
    assert await tree.listing(recursive=True, batch=batch) == sorted(
        {*PREDEFINED_PATHS, *ODD_ORDER, *directories, "data/empty/"}
    )


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("directory", ["", "data"])
async def test_a_listing_continues_after_any_path(tree, recursive, directory):
    await tree.put_all(*ODD_ORDER)
    everything = await tree.listing(directory, recursive=recursive)
    afters = [
        "data", "data/b", "data/b/zzz", "data/b/c/d", "data/é", "dat", "e", "\U0010ffff",
        "x" * 3000,
    ]  # fmt: skip
    for after in [*everything, *afters]:
        rest = [path for path in everything if path > after]
        assert await tree.listing(directory, recursive=recursive, after=after, batch=2) == rest


async def test_directory_of_more_than_a_page_is_listed_and_deleted_as_a_whole(tree):
    names = [f"data/many/{number:02}" for number in range(23)]
    await asyncio.gather(*(tree.put(name, b"x") for name in names))
    assert await tree.listing("data/many") == names
    assert await tree.listing("data/many", recursive=True) == names
    assert await tree.files_at("data/many/") == [names]
    await tree.delete("data/many/")
    assert await tree.listing("data", recursive=True) == []


@pytest.mark.parametrize(
    "name", ["with space", "ünï-漢字😀", "#a&b=c;d+e", "what?", "100%", "%2F", "'\"<>\\", "é" * 127]
)
async def test_unusual_names_are_kept(tree, name):
    await tree.put(f"data/{name}/{name}", b"odd")
    assert await tree.listing(f"data/{name}") == [f"data/{name}/{name}"]
    assert await tree.get(f"data/{name}/{name}") == b"odd"
    await tree.rename(f"data/{name}/{name}", f"data/{name}/{name}x")
    assert await tree.listing("data", recursive=True) == [f"data/{name}/", f"data/{name}/{name}x"]
    await tree.delete(f"data/{name}/")
    assert await tree.listing("data") == []


# -- survey: files_at, holds_files --------------------------------------------------------------
async def test_files_at_gives_files_below_each_path_or_none(tree):
    await tree.put_all("data/x/a.txt", "data/x/sub/b.txt", "config/c.yaml")
    await tree.make("data/empty/inside")
    expected = {
        "data/x/": ["data/x/a.txt", "data/x/sub/b.txt"],
        "config/c.yaml": ["config/c.yaml"],
        "data/x/sub": ["data/x/sub/b.txt"],
    }
    expected |= {"data/empty": [], "data/no": None, "log": [], "data/x/a": None}
    assert await tree.files_at(*expected) == [*expected.values()]
    asked = [tree.path("config/c.yaml"), tree.path("config")]
    ([entry], [same]), held = await tree.storage.survey(asked, [asked[1], tree.path("output/x")])
    assert entry == same == await tree.stat("config/c.yaml")
    assert held == [True, False]


async def test_a_survey_ends_as_soon_as_there_are_too_many_files(tree):
    await tree.put_all(*(f"data/x/{number}" for number in range(4)), "data/y/1")
    x, y, same = tree.path("data/x"), tree.path("data/y"), tree.path("data/x/3")
    found, _ = await tree.storage.survey([x, same, x.as_directory], [], most=4)
    assert [len(files) for files in found] == [4, 1, 4]  # four distinct ones
    for inputs, most in (([x, y], 4), ([x], 3)):
        with pytest.raises(TooManyFiles):
            await tree.storage.survey(inputs, [], most=most)


async def test_a_survey_visits_a_bounded_number_of_entries(tree, monkeypatch):
    monkeypatch.setattr(budget, "_FEW_VISITS", 8)
    await tree.put_all(*(f"data/{'d/' * depth}x" for depth in range(1, 8)))
    inputs = [tree.path(f"data/{'d/' * depth}") for depth in range(1, 8)]
    with pytest.raises(TooManyFiles):
        await tree.storage.survey(inputs, [], most=7)


async def test_holds_files_looks_at_any_depth(tree):
    await tree.put_all("output/job/deep/er/a.txt", "log/job.txt")
    await tree.make("artifact/job/empty/er")
    asked = ["output/job", "log/job.txt", "artifact/job", "output/jo", "output", "log/job"]
    assert await tree.holds_files(*asked) == [True, True, False, False, True, False]


# -- directories ------------------------------------------------------------------------
async def test_directory_is_made_with_its_parents_and_again(tree):
    await tree.make("data/x/y/z")
    await tree.make("data/x/y/z/")
    await tree.make("data")
    assert await tree.listing("data", recursive=True) == ["data/x/", "data/x/y/", "data/x/y/z/"]
    assert await tree.listing("data/x/y/z") == []


@pytest.mark.parametrize("text", ["data/a.txt", "data/a.txt/", "data/a.txt/x", "data/a.txt/x/y"])
async def test_directory_at_or_below_a_file_is_a_conflict(tree, text):
    await tree.put("data/a.txt", b"1")
    with pytest.raises(PathConflict):
        await tree.make(text)
    with pytest.raises(PathConflict):
        await tree.storage.presign_upload(tree.path(text))
    assert await tree.listing("data", recursive=True) == ["data/a.txt"]


# -- writing ----------------------------------------------------------------------------
async def test_written_file_is_described_and_holds_all_chunks(tree):
    entry = await tree.put("data/x/y/a.txt", b"one", b"", b"two")
    assert (entry.path, entry.size) == ("data/x/y/a.txt", 6)
    assert entry.etag == (await tree.stat("data/x/y/a.txt")).etag
    assert await tree.get("data/x/y/a.txt") == b"onetwo"
    assert await tree.listing("data", recursive=True) == ["data/x/", "data/x/y/", "data/x/y/a.txt"]


@pytest.mark.parametrize("chunks", [(), (b"",)])
async def test_empty_file_is_a_file(tree, chunks):
    assert (await tree.put("data/empty", *chunks)).size == 0
    assert await tree.listing("data") == ["data/empty"]
    assert await tree.get("data/empty") == b""


@pytest.mark.parametrize("length", [(1 << 20) - 1, 1 << 20, 8 << 20, (25 << 20) + 12345])
async def test_large_file_arrives_unchanged(tree, length):
    block = bytes(range(256)) * 1021  # no divisor of any buffer
    whole = (block * (length // len(block) + 1))[:length]
    chunks = [whole[start : start + 99_991] for start in range(0, length, 99_991)]
    entry = await tree.put("data/large", *chunks)
    assert entry.size == length
    assert entry.etag == (await tree.stat("data/large")).etag
    assert await tree.get("data/large") == whole


async def test_writing_replaces_a_file_and_changes_its_etag(tree):
    await tree.put("data/a.txt", b"a long first version")
    before = (await tree.stat("data/a.txt")).etag
    assert (await tree.stat("data/a.txt")).etag == before
    await tree.put("data/a.txt", b"second")
    assert (await tree.stat("data/a.txt")).etag != before
    assert await tree.get("data/a.txt") == b"second"
    assert await tree.listing("data") == ["data/a.txt"]


@pytest.mark.parametrize("count", [0, 1, 10])
@pytest.mark.parametrize(
    "text", ["", "data", "data/x", "data/x/", "data/x/a.txt/b", "data/x/a.txt/b/c"]
)
async def test_conflicting_write_reads_little_of_its_content(tree, text, count):
    await tree.put("data/x/a.txt", b"1")
    count_read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal count_read
        for _ in range(count):
            count_read += 1
            yield b"new" * 20_000

    with pytest.raises(PathConflict):
        await tree.storage.write(tree.path(text), chunks())
    assert count_read <= 2
    assert await tree.listing("data", recursive=True) == ["data/x/", "data/x/a.txt"]
    assert await tree.get("data/x/a.txt") == b"1"


@pytest.mark.parametrize("size", [10, 3 << 20, 20 << 20])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_left_of_a_write_that_fails_or_is_cancelled(tree, size, cancelled):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(0, size, MEBIBYTE):
            yield b"x" * min(size, MEBIBYTE)
        stalled.set()
        if cancelled:
            await asyncio.Event().wait()
        raise Broken

    await tree.put("data/old", b"old")
    for path in ("data/new/a.txt", "data/old"):
        stalled = asyncio.Event()
        writing = asyncio.create_task(tree.storage.write(tree.path(path), chunks()))
        await stalled.wait()
        assert await tree.listing("data", recursive=True) == ["data/old"]
        writing.cancel() if cancelled else None
        with pytest.raises(asyncio.CancelledError if cancelled else Broken):
            await writing
    assert await tree.listing("data", recursive=True) == ["data/old"]
    assert await tree.get("data/old") == b"old"


async def test_racing_writes_leave_one_of_them_whole(tree):
    bodies = [bytes([number]) * 300_000 for number in range(8)]
    await asyncio.gather(*(tree.put("data/x/raced", body) for body in bodies))
    assert await tree.get("data/x/raced") in bodies
    assert await tree.listing("data/x") == ["data/x/raced"]


# -- reading ----------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["data", "data/x", "data/x/", "data/no", "data/x/a.txt/b"])
async def test_opening_what_is_no_file_is_not_found(tree, text):
    await tree.put("data/x/a.txt", b"1")
    with pytest.raises(NotFound):
        await tree.get(text)


async def test_any_range_of_a_file_can_be_read(tree):
    whole = bytes(range(256)) * 10_000
    await tree.put("data/a.bin", whole)
    async with tree.storage.open(tree.path("data/a.bin")) as file:
        assert file.entry == await tree.stat("data/a.bin")
        for start, length in [(0, 1), (255, 2), (1_234_567, 1_100_000), (2_559_999, 1), (5, 0)]:
            assert await read(file, start, length) == whole[start : start + length]


@pytest.mark.parametrize("size", [0, 1, 999, 1_000, 1_001, 3_000_017])
async def test_blocks_leave_room_and_hold_the_whole_file(tree, size):
    whole = bytes(range(251)) * (size // 251 + 1)
    await tree.put("data/a.bin", whole[:size])
    async with tree.storage.open(tree.path("data/a.bin")) as file:
        chunks = [chunk async for chunk in file.read_blocks(Blocks(size=1_000, room=3))]
    assert all(len(chunk) % 1_003 == 0 for chunk in chunks[:-1])
    content = bytearray()
    for chunk in chunks:
        for start in range(0, len(chunk), 1_003):
            assert chunk[start : start + 3] == bytes(3)
            content += chunk[start + 3 : start + 1_003]
    assert content == whole[:size]


async def test_open_file_never_mixes_versions(tree):
    old, new = b"a" * 2_000_000, b"b" * 2_000_000
    await tree.put("data/a.bin", old)
    async with tree.storage.open(tree.path("data/a.bin")) as file:
        await tree.put("data/a.bin", new)
        with suppress(StorageUnavailable):  # a storage may refuse instead
            assert await read(file) == old
        assert file.entry.size == len(old)


async def test_small_files_are_read_together_and_nothing_else_is(tree):
    small = {
        f"data/{place}/{number}": bytes([number]) * 100 for place in "xy" for number in range(40)
    }
    small |= {"data/empty": b"", "data/just": b"j" * SMALL_FILE}
    for text, content in small.items():
        await tree.put(text, content)
    await tree.put("data/large", b"l" * (SMALL_FILE + 1))
    asked = [*small, "data/large", "data/x", "data/none", "none/none", "data/empty/x"]
    found = await tree.storage.read_small([tree.path(text) for text in asked])
    assert {str(path): content for path, content in found.items()} == small
    assert await tree.storage.read_small([]) == {}


# -- renaming ---------------------------------------------------------------------------
@pytest.mark.parametrize("replace", [True, False])
async def test_file_moves_and_parents_are_made(tree, replace):
    await tree.put("data/a.txt", b"hello")
    entry = await tree.rename("data/a.txt", "artifact/deep/er/b.txt", replace=replace)
    assert (entry.path, entry.size) == ("artifact/deep/er/b.txt", 5)
    assert entry.etag == (await tree.stat("artifact/deep/er/b.txt")).etag
    assert await tree.get("artifact/deep/er/b.txt") == b"hello"
    assert await tree.listing("data") == []


async def test_renaming_replaces_a_file_unless_that_is_forbidden(tree):
    await tree.put("data/a.txt", b"new")
    await tree.put("data/b.txt", b"old")
    with pytest.raises(TargetExists):
        await tree.rename("data/a.txt", "data/b.txt", replace=False)
    assert (await tree.get("data/a.txt"), await tree.get("data/b.txt")) == (b"new", b"old")
    await tree.rename("data/a.txt", "data/b.txt")
    assert await tree.listing("data") == ["data/b.txt"]
    assert await tree.get("data/b.txt") == b"new"


@pytest.mark.parametrize(
    ("source", "target"), [("data/old", "data/new"), ("data/old/", "data/new/")]
)
async def test_empty_directory_moves(tree, source, target):
    await tree.make("data/old")
    assert await tree.rename(source, target) == Entry("data/new/")
    assert await tree.listing("data", recursive=True) == ["data/new/"]


@pytest.mark.parametrize("replace", [True, False])
async def test_renaming_onto_itself_changes_nothing(tree, replace):
    await tree.put("data/a.txt", b"hello")
    await tree.make("data/empty")
    before = await tree.stat("data/a.txt")
    assert (await tree.rename("data/a.txt", "data/a.txt", replace=replace)).etag == before.etag
    assert await tree.rename("data/empty", "data/empty/", replace=replace) == Entry("data/empty/")
    assert await tree.listing("data") == ["data/a.txt", "data/empty/"]
    assert await tree.get("data/a.txt") == b"hello"


REFUSALS = [
    ("data/none", "data/b", NotFound),
    ("data/none", "nowhere/b", NotFound),
    ("data/file/below", "data/b", NotFound),
    ("data/full", "data/b", DirectoryNotEmpty),
    ("data/full", "nowhere/b", DirectoryNotEmpty),
    ("data/full/", "data/full/inside", DirectoryNotEmpty),
    ("data", "data/b", DirectoryNotEmpty),
    ("log", "data/b", PredefinedDirectory),
    ("log/", "nowhere", PredefinedDirectory),
    ("", "data/b", DirectoryNotEmpty),
    ("data/file", "", InvalidPath),
    ("data/file", "b", InvalidPath),
    ("data/file", "nowhere/b", InvalidPath),
    ("data/file", "data/file/b", InvalidPath),
    ("data/empty", "data/empty/b", InvalidPath),
    ("data/file", "data/full/file/b", PathConflict),
    ("data/file", "data/full/file/b/c", PathConflict),
    ("data/empty", "data/file/b", PathConflict),
    ("data/file", "data/full", PathConflict),
    ("data/file", "data/empty", PathConflict),
    ("data/file", "config", PathConflict),
    ("data/empty", "data/full", PathConflict),
    ("data/empty", "data/void", PathConflict),
    ("data/empty", "data/file", PathConflict),
]


@pytest.mark.parametrize(("source", "target", "refusal"), REFUSALS)
async def test_refused_rename_says_why_and_leaves_nothing(tree, source, target, refusal):
    await tree.put("data/full/file", b"inside")
    await tree.put("data/file", b"outside")
    await tree.make("data/empty")
    await tree.make("data/void")
    before = await tree.listing(recursive=True)
    for replace in (True, False):
        with pytest.raises(refusal):
            await tree.rename(source, target, replace=replace)
    assert await tree.listing(recursive=True) == before
    assert await tree.get("data/file") == b"outside"


async def test_renaming_into_another_users_tree_is_refused(tree):
    await tree.put("data/a.txt", b"mine")
    with pytest.raises(InvalidPath):
        await tree.storage.rename(tree.path("data/a.txt"), UserPath.parse("other", "data/a.txt"))
    assert await tree.get("data/a.txt") == b"mine"


# -- deleting ---------------------------------------------------------------------------
async def test_directory_is_deleted_with_all_it_holds_and_nothing_else(tree):
    await tree.put_all("data/p/run1/a", "data/p/run1/sub/b", "data/p/run10/c", "data/p/run1.txt")
    await tree.delete("data/p/run1/")
    kept = ["data/p/", "data/p/run1.txt", "data/p/run10/", "data/p/run10/c"]
    assert await tree.listing("data", recursive=True) == kept
    await tree.delete("data/p/run10/c")  # its directory stays
    assert await tree.listing("data", recursive=True) == kept[:-1]


@pytest.mark.parametrize("text", ["data/no", "data/no/", "nowhere", "data/a.txt/b", "data/x/no/no"])
async def test_deleting_nothing_is_fine_and_makes_nothing(tree, text):
    await tree.put("data/a.txt", b"1")
    before = await tree.listing(recursive=True)
    await tree.delete(text)
    assert await tree.listing(recursive=True) == before


@pytest.mark.parametrize("text", ["", *PREDEFINED_PATHS])
async def test_root_and_predefined_directories_are_emptied_not_lost(tree, text):
    files = ["data/x/a.txt", "config/a", "other/b.txt", "log/l", "output/o", "artifact/m"]
    await tree.put_all(*files)
    before = await tree.listing(recursive=True)
    await tree.delete(text)
    after = [path for path in before if not path.startswith(text) or path in PREDEFINED_PATHS]
    assert await tree.listing(recursive=True) == after


# -- the rest ---------------------------------------------------------------------------
async def test_health_shows_the_free_bytes_where_they_are_known(tree):
    health, free = await tree.storage.health(), await tree.storage.free_bytes()
    assert health["ok"] is True
    assert ("free_bytes" in health) == (free is not None) == (health["kind"] == "local")
    assert free is None or free > 0


async def test_a_file_may_be_named_with_a_slash_where_no_directory_is(tree):
    await tree.put("data/x/f.txt", b"one")
    assert await tree.get("data/x/f.txt/") == b"one"
    assert (await tree.stat("data/x/f.txt/")).path == "data/x/f.txt"
    assert await tree.files_at("data/x/f.txt/") == [["data/x/f.txt"]]
    moved = await tree.rename("data/x/f.txt/", "data/x/g.txt")
    assert (moved.path, moved.size) == ("data/x/g.txt", 3)
    await tree.delete("data/x/g.txt/")
    assert await tree.listing("data/x") == []


# -- versions ---------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 5, SMALL_FILE + 1, 9 * MEBIBYTE])
async def test_whatever_happens_to_a_stored_file_changes_its_version(tree, size):
    entry = await tree.put("data/a.bin", b"a" * size)
    assert entry.is_distinct
    assert entry.etag == (await tree.stat("data/a.bin")).etag
    again = await tree.put("data/a.bin", b"b" * size)
    assert again.etag != entry.etag or not size


@pytest.mark.parametrize("target", ["config/b.txt", "data/a.txt"])
async def test_a_moved_file_says_which_version_was_moved(tree, target):
    entry = await tree.put("data/a.txt", b"hello")
    moved = await tree.rename("data/a.txt", target)
    assert moved.moved_from == entry.etag
    assert moved.etag == (await tree.stat(target)).etag
