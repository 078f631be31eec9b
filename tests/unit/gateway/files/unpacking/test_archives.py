"""Members come out of archives of every kind, whatever pieces their bytes come in."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common.storage.paths import UserPath
from gateway.files.unpacking.archives import read_archive
from gateway.files.unpacking.contents import Contents, LargeFile, UnpackLimits
from gateway.http.errors import Invalid, TooLarge
from tests.support import archives
from tests.support.archives import MAKERS

NO_LIMITS = UnpackLimits(files=0, bytes=0, bytes_per_file=0)
BASE = UserPath.parse("user", "data/x/")
DEEP = "/".join(["deep" * 20] * 6)
CONTENT = {
    "a.txt": b"alpha",
    "empty": b"",
    "dir": None,
    "dir/ünï-漢字.bin": os.urandom(3000),
    f"{DEEP}/{'long' * 30}": b"x" * 70_000,
    "large.bin": os.urandom(300_000) + bytes(700_000),
}


def cut(data: bytes, size: int = 50_000):
    return iter([data[at : at + size] for at in range(0, len(data), size)])


def unpack(data: bytes, limits: UnpackLimits = NO_LIMITS, *, size: int = 50_000):
    """Files by path below the base, and the directories without anything in them."""
    contents, found = Contents(BASE, limits), {}
    for step in contents.steps(read_archive(cut(data, size))):
        for file in [step] if isinstance(step, LargeFile) else step:
            whole = b"".join(file.pieces) if isinstance(file, LargeFile) else file.content
            found[str(file.path).removeprefix("data/x/")] = whole
    return found, [str(path).removeprefix("data/x/") for path in contents.empty_directories()]


def fault(data: bytes, limits: UnpackLimits = NO_LIMITS) -> str:
    """What the archive is refused for."""
    with pytest.raises(Invalid) as caught:
        unpack(data, limits)
    (found,) = caught.value.faults
    assert found.loc == ["body", "file"]
    return found.msg


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("size", [7, 1000, 1 << 20])
def test_every_kind_of_archive_gives_its_files_in_their_order(make, size):
    content = CONTENT if size > 7 else {"a": b"alpha", "b/c": b"x" * 2000, "e": b""}
    files, _ = unpack(make(content), size=size)
    expected = [(name, data) for name, data in content.items() if data is not None]
    assert list(files.items()) == expected


names = st.lists(st.text("abcé漢 .-_", min_size=1, max_size=5), min_size=1, max_size=4)
NAME = names.map("/".join).filter(
    lambda name: not {".", ".."} & set(name.split("/")) and not name.startswith("./")
)


@given(
    content=st.dictionaries(NAME, st.none() | st.binary(max_size=300), max_size=12),
    kind=st.sampled_from(sorted(MAKERS)),
    size=st.integers(1, 3000),
)
def test_any_tree_comes_out_as_it_went_in_or_is_refused(content, kind, size):
    files = {name: data for name, data in content.items() if data is not None}
    above = {
        name.rsplit("/", depth)[0] for name in content for depth in range(1, name.count("/") + 1)
    }
    data = MAKERS[kind](content)
    if above & files.keys():
        assert "file of the archive" in fault(data) or "directory of the archive" in fault(data)
        return
    found, empty = unpack(data, size=size)
    assert found == files
    directories = content.keys() - files.keys()
    expected = {f"{name}/" for name in directories - above}
    assert set(empty) == (expected if content else {""})


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_empty_archive_holds_nothing(make):
    assert unpack(make({})) == ({}, [""])


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_that_is_cut_off_anywhere_is_refused(kind):
    data = MAKERS[kind]({"a": os.urandom(2000), "b/c": b"x" * 3000})
    # behind a plain tar's first block of zeros nothing is missing
    last = 512 * (1 + 4 + 1 + 6) if kind in {"pax", "gnu"} else len(data) - 1
    for end in {0, 1, 3, 100, 600, last, *random.Random(1).sample(range(last), 40)}:
        assert fault(data[:end])


def test_what_is_no_archive_is_refused_with_the_kinds_that_are_taken():
    for data in (b"", b"x", b"hello world" * 100, os.urandom(2000)):
        assert "it is neither a tar, plain or compressed by gzip or zstd, nor a zip" in fault(data)
    assert "what is compressed is no tar" in fault(gzip.compress(b"hello"))
    plain = archives.tar({"a": b"x"})
    assert "compressed by bzip2" in fault(bz2.compress(plain))
    assert "compressed by xz" in fault(lzma.compress(plain))
    assert "cannot be read" in fault(archives.tar({"a": b"x"})[512:])


@pytest.mark.parametrize("kind", MAKERS)
def test_damaged_archives_are_refused(kind):
    is_plain = kind in {"pax", "gnu"}  # of which only the headers have checksums
    data = bytearray(MAKERS[kind]({"a": os.urandom(4000), "b": bytes(5000)}))
    data[512 + 4096 + 10 if is_plain else 700] ^= 0x55
    assert ("bad checksum" if is_plain else "damaged") in fault(bytes(data))


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"6", b"S", b"M"])
def test_links_and_devices_in_a_tar_are_refused_by_name(kind):
    members = [archives.tar_member("first", b"1")]
    members.append(archives.tar_member("dir/second", kind=kind, link="/etc/passwd"))
    members.append(archives.tar_member("third", kind=b"2", link="x"))
    said = fault(archives.tar_of(members))
    assert "'dir/second' given" in said
    assert "cannot be stored" in said


@pytest.mark.parametrize("mode", [0o120000, 0o020000, 0o060000, 0o010000])
def test_links_and_devices_in_a_zip_are_refused_by_name(mode):
    said = fault(archives.zip_with_mode("dir/second", mode))
    assert "'dir/second' given" in said
    assert "cannot be stored" in said


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "a/./b", "a/%2e%2E/b", "a\\..\\b", "a\nb", "n" * 256, "..",
     "a/" * 460 + "x", "nul\x7f", "\udcff", "./../x"],
)  # fmt: skip
@pytest.mark.parametrize("make", [archives.tar, archives.zipped], ids=["tar", "zip"])
def test_names_that_no_file_can_have_are_refused_by_name(make, name):
    if make is archives.zipped and "\udcff" in name:
        data = make({"first": b"1", "??": b"2"}).replace(b"??", b"\xff\xfe")
        flagged = bytearray(data)
        flagged[data.index(b"\xff\xfe") - 23] |= 8  # says that it is UTF-8
        assert "given: a name must be valid Unicode" in fault(bytes(flagged))
        return
    said = fault(make({"first": b"1", name: b"2"}))
    assert " given: " in said
    assert "first" not in said


@pytest.mark.parametrize(
    ("members", "named"),
    [
        (["a", "b", "a"], "a"),
        (["a", "./a"], "./a"),
        (["a", "a/b"], "a/b"),
        (["a/b", "a"], "a"),
        (["a/", "a"], "a"),
        (["a", "a/"], "a"),
        (["a", "a/b/c/"], "a/b/c"),
    ],
)
def test_members_that_exclude_each_other_are_refused_by_name(members, named):
    made = [archives.tar_member(name, None if name[-1] == "/" else b"x") for name in members]
    assert f"'{named}' given" in fault(archives.tar_of(made))


def test_directories_may_come_again_and_the_archive_may_name_its_own():
    made = [archives.tar_member(name, None) for name in ("./", "./a/", "a", "./a/b")]
    made.append(archives.tar_member("./a/b/file", b"x"))
    assert unpack(archives.tar_of(made)) == ({"a/b/file": b"x"}, [])


def test_a_name_without_encoding_in_a_zip_is_utf_8_or_of_code_page_437():
    data = archives.zipped({"??": b"1"})
    assert unpack(data.replace(b"??", b"\x81x"))[0] == {"üx": b"1"}
    assert unpack(data.replace(b"??", "ü".encode()))[0] == {"ü": b"1"}


def test_backslashes_in_a_zip_separate_as_in_names_of_uploads():
    data = archives.zipped({"a?b.txt": b"1"}).replace(b"a?b", b"a\\b")
    assert unpack(data)[0] == {"a/b.txt": b"1"}


def test_several_gzip_streams_are_one_and_what_follows_the_end_is_ignored():
    content = {"a": b"x" * 5000, "b": b"y"}
    plain = archives.tar(content)
    streams = gzip.compress(plain[:3000]) + gzip.compress(plain[3000:])
    for data in (streams, plain, archives.zipped(content)):
        assert unpack(data + b"garbage")[0] == content


def test_several_zstd_frames_are_one():
    plain = archives.tar({"a": b"x" * 5000})
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"
    frames = skippable + compress(plain[:3000]) + compress(plain[3000:])
    assert unpack(frames)[0] == {"a": b"x" * 5000}


def test_members_that_a_stream_cannot_give_are_refused_by_name():
    piped = archives.zipped({"a": b"x" * 10}, method=zipfile.ZIP_STORED, piped=True)
    assert "'a' given: its size does not stand in front of it" in fault(piped)
    encrypted = bytearray(archives.zipped({"secret": b"x" * 10}))
    encrypted[6] |= 1
    assert "'secret' given: it is encrypted" in fault(bytes(encrypted))
    for method, name in [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")]:
        assert f"'a' given: it is compressed by {name}" in fault(
            archives.zipped({"a": b"x" * 10}, method=method)
        )
    info, data = archives.tar_member("sparse", b"x" * 10)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    assert "'sparse' given: a sparse file" in fault(archives.tar_of([(info, data)]))


def test_a_zip_without_its_list_is_refused():
    data = archives.zipped({"a": b"x", "b": b"y"})
    at = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    second = data.index(b"PK\x01\x02", at + 1)
    assert "ends early" in fault(data[:at])
    assert "does not fit" in fault(data[:at] + data[end:])
    assert "does not fit" in fault(data[:at] + data[second:])


def test_pax_headers_of_other_writers_are_understood():
    info, data = archives.tar_member("short", b"x" * 10)
    info.pax_headers = {"path": "pax/" + "n" * 200, "comment": "a\nb", "SCHILY.xattr.user.x": "v"}
    assert unpack(archives.tar_of([(info, data)]))[0] == {"pax/" + "n" * 200: data}
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", pax_headers={"comment": "c" * 50}) as archive:
        archive.addfile(*[archives.tar_member("a", b"x")[0], io.BytesIO(b"x")])
    assert unpack(written.getvalue())[0] == {"a": b"x"}


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("h")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X", b"V"])
def test_a_header_that_claims_a_gigabyte_is_refused_before_it_is_read(kind):
    def endless():
        yield header(kind, 1 << 30)
        raise AssertionError("read on")

    with pytest.raises(Invalid, match="headers of a member"):
        list(read_archive(endless()))
    many = header(kind, 0) * 3000
    assert "headers of a member" in fault(many)


def test_headers_of_all_members_are_bounded_like_those_of_one():
    def long(size: int, records: bytes = b"") -> bytes:
        comment = f"{size} comment=".encode()
        content = records + comment.ljust(size - 1, b"x") + b"\n"
        return header(b"x", len(content)) + content + bytes(-len(content) % 512)

    def member(number: int) -> bytes:
        return archives.tar({str(number): b""})[:512]

    end = bytes(1024)
    once = long(1_000_000) + member(0) + long(10_000) * 3 + member(1)
    assert unpack(once + end)[0] == {"0": b"", "1": b""}
    usual = b"".join(long(60_000) + member(number) for number in range(40))
    assert len(unpack(usual + end)[0]) == 40
    again = b"".join(long(600_000) + member(number) for number in range(40))
    assert "headers of a member have more than" in fault(again + end)
    assert "more than 1000 records" in fault(long(100, b"5 a=\n" * 1000) + member(0) + end)
    assert unpack(long(100, b"5 a=\n" * 999) + member(0) + end)[0] == {"0": b""}


@pytest.mark.parametrize(
    "records", [b"99 path=a\n", b"x path=a\n", b"5 a=b", b"0 a=b\n", b"9 size=x\n", b"11 size=-1\n"]
)
def test_damaged_pax_headers_are_refused(records):
    data = header(b"x", len(records)) + records.ljust(512, b"\0") + archives.tar({"a": b"x"})
    assert "extended header is damaged" in fault(data)


def limited(**limits: int) -> UnpackLimits:
    return UnpackLimits(**({"files": 0, "bytes": 0, "bytes_per_file": 0} | limits))


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_limits_count_what_comes_out(make):
    data = make({"a": b"x" * 600, "d/e/b": b"y" * 400})
    for limits in (limited(files=4), limited(bytes=1000), limited(bytes_per_file=600)):
        assert len(unpack(data, limits)[0]) == 2
    for limits in (limited(files=3), limited(bytes=999), limited(bytes_per_file=599)):
        with pytest.raises(TooLarge):
            unpack(data, limits)


def test_directories_count_each_time():
    made = [archives.tar_member("./", None)] * 5
    assert unpack(archives.tar_of(made), limited(files=5))
    with pytest.raises(TooLarge):
        unpack(archives.tar_of(made), limited(files=4))


def test_deep_paths_take_no_more_memory_than_many_usual_ones():
    made = [archives.tar_member(f"{number}/{'d/' * 400}", None) for number in range(100)]
    with pytest.raises(TooLarge, match="too long"):
        unpack(archives.tar_of(made), limited(files=50_000))
    usual = [archives.tar_member(f"{number}/{'d/' * 10}{'n' * 100}") for number in range(100)]
    assert unpack(archives.tar_of(usual), limited(files=50_000))


def test_a_claim_beyond_the_limits_is_refused_before_the_content_comes():
    info = tarfile.TarInfo("huge")
    info.size = 1 << 62

    def endless():
        yield info.tobuf(tarfile.GNU_FORMAT)
        raise AssertionError("read on")

    contents = Contents(BASE, limited(bytes=1 << 40))
    with pytest.raises(TooLarge):
        list(contents.steps(read_archive(endless())))


def bomb_of_zeros(kind: str):
    """A member of many gigabytes of zeros, in pieces of what was compressed."""
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 40
    if kind == "zip":
        packer = zlib.compressobj(9, wbits=-15)
        yield struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 8, 8, 0, 0, 0, 0, 0, 1, 0) + b"z"
        compress = packer.compress
    elif kind == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        compress = packer.compress
        yield compress(info.tobuf(tarfile.GNU_FORMAT))
    else:
        compress = zstandard.ZstdCompressor().compressobj().compress
        yield compress(info.tobuf(tarfile.GNU_FORMAT))
    zeros = bytes(1 << 20)
    while True:
        yield b"".join(compress(zeros) for _ in range(8))


@pytest.mark.parametrize("kind", ["zip", "gzip", "zstd"])
def test_bombs_come_out_in_small_pieces_until_a_limit(kind):
    contents = Contents(BASE, limited(bytes=(1 << 40) if kind != "zip" else 200 << 20))
    steps = contents.steps(read_archive(filter(None, bomb_of_zeros(kind))))
    large = next(step for step in steps if isinstance(step, LargeFile))
    sizes = []
    with suppress(TooLarge):  # the tars claim their size
        while sum(sizes) < 201 << 20:
            sizes.append(len(next(large.pieces)))
    assert (sum(sizes) <= 200 << 20) == (kind == "zip")
    assert max(sizes) <= 1 << 18


def test_a_window_that_takes_much_memory_is_refused():
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = packer.compress(archives.tar({"a": os.urandom(1 << 20)})) + packer.flush()
    assert "--long" in fault(data)


def test_what_a_directory_in_a_zip_holds_is_refused_at_once_since_no_limit_counts_it():
    def endless():
        packer = zlib.compressobj(9, wbits=-15)
        yield struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 8, 8, 0, 0, 0, 0, 0, 2, 0) + b"d/"
        yield packer.compress(bytes(1 << 26)) + packer.flush(zlib.Z_SYNC_FLUSH)
        raise AssertionError("read on")

    with pytest.raises(Invalid, match="'d/' given: a directory has no content"):
        list(Contents(BASE, NO_LIMITS).steps(read_archive(endless())))
