"""Which kind of archive the first bytes belong to, and its members. Blocking."""

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import IO, Final, cast

import zstandard

from gateway.files.unpacking import tars, zips
from gateway.files.unpacking.members import PIECE, ByteReader, Member, broken

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_OTHERS: Final = {
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\0": "compressed by xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z",
    b"Rar!": "a RAR",
}
_NEITHER: Final = "neither a tar, plain or compressed by gzip or zstd, nor a zip"

_ZSTD_WINDOW: Final = 8 << 20
"""Bytes that zstd looks back at most: what every decoder should support (RFC 8878, 3.1.1.1.2)."""

_MOST_BEHIND: Final = 64 << 20
"""Decompressed bytes behind the end of a tar that are read for its checksum."""


def read_archive(chunks: Iterator[bytes]) -> Iterator[Member]:
    """The members of an archive of any kind; raises `Invalid`. May leave bytes behind its end."""
    reader = ByteReader(chunks)
    start = reader.peek(tars.BLOCK)
    if start[:4] in {zips.LOCAL, zips.END}:
        yield from zips.read_zip(reader)
    elif start.startswith(_GZIP):
        yield from _compressed_tar(_gunzipped(reader))
    elif start.startswith(_ZSTD) or (start[1:4] == _ZSTD_SKIPPABLE and start[0] >> 4 == 5):
        yield from _compressed_tar(_of_zstd(reader))
    elif tars.is_header(start):
        yield from tars.read_tar(reader)
    else:
        other = [f"{kind}, " for magic, kind in _OTHERS.items() if start.startswith(magic)]
        raise broken(f"it is {''.join(other)}{_NEITHER}")


def _compressed_tar(chunks: Iterator[bytes]) -> Iterator[Member]:
    reader = ByteReader(chunks)
    if not tars.is_header(reader.peek(tars.BLOCK)):
        raise broken("what is compressed is no tar")
    yield from tars.read_tar(reader)
    left = _MOST_BEHIND
    while behind := reader.some(PIECE):
        left -= len(behind)
        if left < 0:
            raise broken(f"more than {_MOST_BEHIND} bytes follow its end")


def _gunzipped(reader: ByteReader) -> Iterator[bytes]:
    """Several gzip streams behind each other are one; anything else behind them is ignored."""
    while reader.peek(2) == _GZIP:
        inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
        while not inflater.eof:
            data = inflater.unconsumed_tail or reader.some(PIECE)
            try:
                piece = inflater.decompress(data, PIECE)
            except zlib.error as error:
                raise broken("its compressed bytes are damaged") from error
            if piece:
                yield piece
            elif not data:
                raise broken("it ends early")
        reader.unread(len(inflater.unused_data))


_FRAME_AT_THE_END: Final = (
    b"\x50\x2a\x4d\x18" + (1 << 18).to_bytes(4, "little") + b"\xff" * (1 << 18)
)
"""A frame that is skipped behind a complete one. An incomplete one cannot go on with its bytes, of
which there are more than in any block: zstd itself does not say that a stream ends early."""


class _Readable:
    def __init__(self, reader: ByteReader) -> None:
        self.read = reader.some


def _of_zstd(reader: ByteReader) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    chunks = chain(iter(lambda: reader.some(PIECE), b""), [_FRAME_AT_THE_END])
    source = cast("IO[bytes]", _Readable(ByteReader(chunks)))
    with decompressor.stream_reader(source, read_across_frames=True) as found:
        while True:
            try:
                piece = found.read(PIECE)
            except zstandard.ZstdError as error:
                raise broken(
                    f"its compressed bytes are damaged or cut off, or {_WINDOW_HINT}"
                ) from error
            if not piece:
                return
            yield piece


_WINDOW_HINT: Final = f"zstd looks back more than {_ZSTD_WINDOW} bytes in it (--long, --ultra)"
