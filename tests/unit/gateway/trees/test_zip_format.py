"""What `Archive` makes, read by Python's own reader."""

import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.trees.zip_format import BLOCKS, Archive, Streamed

GIBIBYTE = 1 << 30
MOMENT = datetime(2026, 11, 24, 22, 10, 31, tzinfo=UTC).timestamp()


def packed(member: Streamed, content: bytes) -> bytes:
    """The content of a member, in chunks of two blocks."""
    chunks = []
    for start in range(0, len(content), 2 * BLOCKS.size):
        part = content[start : start + 2 * BLOCKS.size]
        chunk, places = BLOCKS.places(len(part))
        for number, place in enumerate(places):
            place[:] = part[number * BLOCKS.size :][: BLOCKS.size]
        member.pack(chunk)
        chunks.append(bytes(chunk))
    return b"".join(chunks)


def pack(*members: tuple[str, bytes], streamed: bool = False) -> bytes:
    archive = Archive()
    records = []
    for name, content in members:
        if streamed:
            head, member = archive.begin(name, MOMENT, len(content))
            records += [head, packed(member, content), archive.finish(member)]
        else:
            records.append(archive.whole(name, MOMENT, content))
    return b"".join([*records, *archive.end()])


@pytest.mark.parametrize("streamed", [False, True])
def test_members_keep_names_bytes_and_times(streamed: bool) -> None:
    members = {"a.txt": b"aaa", "ü/漢.txt": b"\0" * 70_000, "empty": b"", "folder/": b""}
    with zipfile.ZipFile(io.BytesIO(pack(*members.items(), streamed=streamed))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members
        for info in archive.infolist():
            assert info.date_time == (2026, 11, 24, 22, 10, 30)
            assert info.is_dir() == (info.filename == "folder/")
            assert info.external_attr >> 16 == (0o40755 if info.is_dir() else 0o100644)


def test_an_archive_of_nothing_is_one() -> None:
    assert zipfile.ZipFile(io.BytesIO(pack())).namelist() == []


@pytest.mark.parametrize("count", [65_534, 65_535, 70_000])
def test_more_members_than_the_old_format_counts(count: int) -> None:
    content = pack(*((f"{number:06}", b"x") for number in range(count)))
    assert (b"PK\6\6" in content[-100:]) == (count > 65_534)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(archive.namelist()) == count
        assert archive.read(f"{count - 1:06}") == b"x"


@pytest.mark.parametrize("size", [4 * GIBIBYTE - 2, 4 * GIBIBYTE - 1, 4 * GIBIBYTE, 9 * GIBIBYTE])
def test_sizes_and_places_beyond_four_gibibytes(tmp_path: Path, size: int) -> None:
    made = Archive()
    with (tmp_path / "large.zip").open("wb") as file:
        head, member = made.begin("large", MOMENT, size)
        file.write(head)
        file.write(member.next_block())
        file.seek(member.packed_size - BLOCKS.room, io.SEEK_CUR)  # a hole: nobody reads it here
        member.checksum = 0x1234_5678
        file.write(made.finish(member))
        file.write(made.whole("after", MOMENT, b"the next member"))
        file.writelines(made.end())
    with zipfile.ZipFile(tmp_path / "large.zip") as archive:
        large, after = archive.infolist()
        assert (large.file_size, large.compress_size) == (size, member.packed_size)
        assert large.CRC == 0x1234_5678
        assert archive.read(after) == b"the next member"
        with archive.open(large) as opened:
            assert opened.read(10) == bytes(10)


@pytest.mark.parametrize("size", [0, 1, 65_534, 65_535, 65_536, 131_070, 131_071, 1_000_000])
def test_the_length_is_known_beforehand(size: int) -> None:
    members = {"a": bytes(size), "ü/b": bytes(3), "ü/": b""}
    for streamed in (False, True):
        measured = Archive()
        for name, content in members.items():
            measured.skip(name, len(content), streamed=streamed)
        assert measured.length() == len(pack(*members.items(), streamed=streamed))


READER = """
import java.io.*; import java.util.zip.*;
public class Reader {
    public static void main(String[] a) throws Exception {
        ZipInputStream zip = new ZipInputStream(new BufferedInputStream(System.in, 1 << 16));
        byte[] buffer = new byte[1 << 16];
        for (ZipEntry entry; (entry = zip.getNextEntry()) != null; ) {
            long size = 0;
            for (int n; (n = zip.read(buffer)) >= 0; ) size += n;
            System.out.println(entry.getName() + " " + size);
        }
    }
}
"""


def pipe_into(folder: Path, chunks: Iterable[bytes], *command: str) -> bytes:
    """What the command, which must succeed, prints when it reads the chunks from a pipe."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with tempfile.TemporaryFile() as printed:
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=printed,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C.UTF-8"},  # names are written in the locale's encoding
        ) as process:
            assert process.stdin
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        assert process.returncode == 0
        printed.seek(0)
        return printed.read()


MEMBERS = {"large.bin": bytes(range(256)) * 1_000, "empty": b"", "ü.txt": b"x", "b": b"\1" * 65_535}


@pytest.mark.parametrize(
    "command", [("jar", "x"), ("bsdtar", "-xf", "-")], ids=lambda command: command[0]
)
def test_a_pipe_is_unpacked(tmp_path: Path, command: tuple[str, ...]) -> None:
    pipe_into(tmp_path, [pack(*MEMBERS.items(), streamed=True)], *command)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == MEMBERS


def test_funzip_reads_the_first_file_of_a_pipe(tmp_path: Path) -> None:
    content = MEMBERS["large.bin"]
    assert pipe_into(tmp_path, [pack(("a", content), streamed=True)], "funzip") == content


@pytest.mark.parametrize(
    "command", [("unzip", "-q"), ("7z", "x", "-bd")], ids=lambda command: command[0]
)
def test_a_file_is_unpacked(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "a.zip").write_bytes(pack(*MEMBERS.items(), streamed=True))
    pipe_into(tmp_path, [], *command, "a.zip")
    (tmp_path / "a.zip").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == MEMBERS


def large_archive(size: int) -> Iterator[bytes]:
    """An archive with a large file of zeros, and a small one after it."""
    archive = Archive()
    head, member = archive.begin("large", MOMENT, size)
    yield head
    for start in range(0, size, 16 * BLOCKS.size):
        chunk, _ = BLOCKS.places(min(16 * BLOCKS.size, size - start))
        member.pack(chunk)
        yield bytes(chunk)
    yield archive.finish(member)
    yield archive.whole("after", MOMENT, b"next")
    yield from map(bytes, archive.end())


@pytest.mark.parametrize("size", [1 << 20, 4 * GIBIBYTE + 5])
def test_java_reads_a_pipe_of_any_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "Reader.java").write_text(READER)
    printed = pipe_into(tmp_path, large_archive(size), "java", "Reader.java")
    assert printed.decode().splitlines() == [f"large {size}", "after 4"]
