"""What `Archive` makes, read by Python's own reader."""

import io
import zipfile
from binascii import crc32
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.files.zip_format import Archive

GIBIBYTE = 1 << 30
MOMENT = datetime(2026, 11, 24, 22, 10, 31, tzinfo=UTC).timestamp()


def pack(*members: tuple[str, bytes], streamed: bool = False) -> bytes:
    archive = Archive()
    records = []
    for name, content in members:
        if streamed:
            head, member = archive.begin(name, MOMENT, len(content))
            records += [head, content, archive.finish(member, crc32(content))]
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
        file.seek(size, io.SEEK_CUR)  # a hole: nobody reads it here
        file.write(made.finish(member, 0x1234_5678))
        file.write(made.whole("after", MOMENT, b"the next member"))
        file.writelines(made.end())
    with zipfile.ZipFile(tmp_path / "large.zip") as archive:
        large, after = archive.infolist()
        assert (large.file_size, large.compress_size, large.CRC) == (size, size, 0x1234_5678)
        assert archive.read(after) == b"the next member"
        with archive.open(large) as opened:
            assert opened.read(10) == bytes(10)
