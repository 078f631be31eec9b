"""Archives out of which comes as much as can be."""

import gzip
import struct
import tarfile
import zlib

import zstandard

from tests.support.nasty.build import FORM, UPLOAD, Named, filled, request

_LARGEST = 60_000
_START = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
_END = b"\r\n--b--\r\n"


def archives(token: str) -> Named:
    target = UPLOAD + "?unpack=true"
    for name, archive in _archives():
        yield name, request(target, token, FORM, body=_START + archive + _END)


def _archives() -> Named:
    end = bytes(1024)
    for name, piece in (
        ("directories", _header("./", tarfile.DIRTYPE)),
        ("links", _header("x", tarfile.SYMTYPE)),
        ("labels", _header("x", b"V")),
        ("global headers", _pax(b"g", b"comment=x")),
        ("empty headers", _header("x", b"x")),
        ("long names", _header("x", b"L", 4_000) + b"n" * 4_000 + bytes(96)),
        ("zeros", bytes(512)),
    ):
        yield f"a tar of {name}", filled(piece, end=end)
        yield f"a tar.gz of {name}", _gzipped(piece)
    yield "a tar.gz of other names", gzip.compress(_empty_files(8_000))[:_LARGEST]
    yield "a tar.gz of deep directories", gzip.compress(_deep_files(600))[:_LARGEST]
    yield "a tar.gz of records", _gzipped(_pax(b"x", b"a=", 60_000) + _header("x", b"0"))
    yield "empty gzip streams", filled(gzip.compress(b""))
    yield "a gzip of gzip", _gzipped(gzip.compress(bytes(10_000)))
    zeros = _header("zeros", b"0", 1 << 33)
    yield "zeros in a tar.gz", gzip.compress(zeros + bytes(55 << 20))
    frame = zstandard.ZstdCompressor().compress(zeros + bytes(20 << 20))
    yield "zeros in a tar.zst", frame
    yield "empty zstd frames", filled(zstandard.ZstdCompressor().compress(b""))
    yield "frames that zstd skips", filled(b"\x50\x2a\x4d\x18\0\0\0\0")
    yield "zeros in a zip", _local(b"zeros", 8) + zlib.compress(bytes(55 << 20), wbits=-15)
    yield "a zip of empty files", filled(_local(b"@", 0), end=b"PK\x05\x06" + bytes(18))
    yield "a zip of directories", filled(_local(b"a/", 0), end=b"PK\x05\x06" + bytes(18))
    yield "the list of a zip", filled(b"PK\x01\x02" + bytes(42), start=_local(b"a", 0))
    yield "extra fields", filled(b"\0\0\0\0", start=_local(b"a", 0, extra=59_000))


def _header(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def _pax(kind: bytes, record: bytes, size: int = 500) -> bytes:
    records = filled(b"%d %b\n" % (len(record) + 4, record), size=size)
    return _header("x", kind, len(records)) + records + bytes(-len(records) % 512)


def _gzipped(piece: bytes) -> bytes:
    """The piece, again and again, some 20 MB of it."""
    return gzip.compress(piece * (20_000_000 // len(piece)))[:_LARGEST]


def _empty_files(number: int) -> bytes:
    return b"".join(_header(f"{n}", b"0") for n in range(number)) + bytes(1024)


def _deep_files(number: int) -> bytes:
    last = _header("x", b"0")
    return b"".join(
        _header("x", b"L", 870) + f"{n}/{'d/' * 430}".encode().ljust(1024, b"\0") + last
        for n in range(number)
    )


def _local(name: bytes, method: int, *, extra: int = 0) -> bytes:
    """A header of a zip's member, whose sizes follow if it is compressed."""
    flags = 8 if method else 0
    fields = (20, flags, method, 0, 0, 0, 0, 0, len(name.replace(b"@", b"1")), extra)
    return b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", *fields) + name
