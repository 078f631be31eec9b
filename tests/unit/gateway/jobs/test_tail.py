"""The last lines of files that lie in memory."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.storage.errors import NotFound
from common.storage.paths import UserPath
from common.storage.protocol import Entry, OpenFile, Storage
from gateway.jobs.results import tail
from gateway.jobs.results.tail import LogFiles, newest_files, tail_files, tail_text

LOG = UserPath.parse("ada", "log/job/")


class Memory:
    """A storage of a few files, which counts the bytes that are read."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.read = 0
        self.largest = 0

    @asynccontextmanager
    async def open(self, path: UserPath) -> AsyncIterator[OpenFile]:
        if str(path) not in self.files:
            raise NotFound
        yield cast("OpenFile", File(self, str(path)))

    def entries(self) -> list[Entry]:
        return [Entry(path, len(content)) for path, content in self.files.items()]


class File:
    def __init__(self, memory: Memory, path: str) -> None:
        self.memory = memory
        self.content = memory.files[path]
        self.entry = Entry(path, len(self.content))

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        assert length >= 0
        assert offset + length <= len(self.content)
        self.memory.read += length
        for start in range(offset, offset + length, 3):
            yield self.content[start : min(start + 3, offset + length)]


async def shown(memory: Memory, lines: int) -> bytes:
    log = LogFiles(LOG, memory.entries(), 0)
    return b"".join([bytes(part) async for part in tail_files(cast("Storage", memory), log, lines)])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_BLOCK", 4)
    monkeypatch.setattr(tail, "_LARGEST_BLOCK", 9)


@given(
    content=st.text("ab€\n", max_size=40).map(str.encode) | st.binary(max_size=40),
    lines=st.integers(1, 12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_blocks")
async def test_the_last_lines_are_found_wherever_blocks_end(content: bytes, lines: int) -> None:
    every = [line + b"\n" for line in content.split(b"\n")]
    every[-1] = every[-1][:-1]
    if not every[-1]:
        every.pop()  # the line feed at the end begins no line
    expected = b"".join(every[-lines:]).decode(errors="replace")
    assert (await shown(Memory({"log/job/f": content}), lines)).decode() == expected
    assert tail_text(content.decode(errors="replace"), lines)[0].decode() == expected


@given(text=st.text("ab€𝄞", min_size=1, max_size=60), most=st.integers(4, 30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("small_blocks")
async def test_a_cut_keeps_whole_characters_and_says_what_is_missing(text: str, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail, "MOST_BYTES", most)
        found = (await shown(Memory({"log/job/f": text.encode()}), 1)).decode()
    if len(text.encode()) <= most:
        assert found == text
        return
    word, _, rest = found.partition("\n")
    assert text.endswith(rest)
    assert most - 4 < len(rest.encode()) <= most
    assert word == f"[{len(text.encode()) - len(rest.encode())} bytes before this are not shown]"


async def test_no_more_is_read_than_twice_what_is_shown_and_a_block() -> None:
    memory = Memory({"log/job/f": b"0123456789abcde\n" * 100_000})
    assert len(await shown(memory, 200)) == 200 * 16
    assert memory.read == tail._BLOCK
    memory.read = 0
    assert len(await shown(memory, 10_000)) == 160_000
    assert memory.read <= 2 * 160_000 + tail._LARGEST_BLOCK


async def test_many_files_share_a_bound_on_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_TOTAL", 1_000)
    memory = Memory({f"log/job/{number}": b"x" * 5_000 for number in range(10)})
    assert (await shown(memory, 10_000)).count(b"x") == 1_000


async def test_a_file_that_is_gone_by_now_is_omitted() -> None:
    memory = Memory({f"log/job/{name}": name.encode() for name in "abc"})
    log = LogFiles(LOG, memory.entries(), 0)
    del memory.files["log/job/a"]
    parts = [bytes(part) async for part in tail_files(cast("Storage", memory), log, 1)]
    assert b"".join(parts) == b"==> b <==\nb\n==> c <==\nc"


async def test_the_newest_files_are_kept_in_order_and_of_one_age_by_path() -> None:
    ages = {"d": 3.0, "c": 1.0, "b": 2.0, "a": 2.0, "e": None}

    async def batches() -> AsyncGenerator[list[Entry], None]:
        for name, modified in ages.items():
            yield [Entry(f"log/job/{name}", 1, modified)]

    found = await newest_files(LOG, batches())
    assert found is not None
    assert [entry.path[-1] for entry in found.files] == ["e", "c", "a", "b", "d"]
    assert found.left_out == 0
