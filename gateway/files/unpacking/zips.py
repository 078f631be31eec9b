"""Read a zip (PKWARE's APPNOTE 6.3) from a stream. Blocking.

Members are taken from the headers in front of them. The list at the end is read as well: only
there stands what is a link, and without it the archive is not whole.
"""

import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from gateway.files.unpacking.members import PIECE, ByteReader, Member, broken, refused
from gateway.http.errors import Invalid, shortened

LOCAL: Final = b"PK\x03\x04"
END: Final = b"PK\x05\x06"
_CENTRAL: Final = b"PK\x01\x02"
_END_64: Final = b"PK\x06\x06"
_LOCATOR_64: Final = b"PK\x06\x07"
_DESCRIPTOR: Final = b"PK\x07\x08"

_LOCAL_FIELDS: Final = Struct("<HHHHHIIIHH")
_CENTRAL_FIELDS: Final = Struct("<HHHHHHIIIHHHHHII")
_END_FIELDS: Final = Struct("<HHHHIIH")
_SIZES: Final = Struct("<III")
_SIZES_64: Final = Struct("<IQQ")
_EXTRA: Final = Struct("<HH")
_LENGTH_64: Final = Struct("<Q")

_ENCRYPTED: Final = 1 << 0 | 1 << 6 | 1 << 13
_SIZES_FOLLOW: Final = 1 << 3
_UTF_8: Final = 1 << 11
_STORED, _DEFLATED = 0, 8
_METHODS: Final = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd"}

_ZIP64: Final = 1
_UNICODE_PATH: Final = 0x7075
_FULL: Final = 0xFFFFFFFF

_STEP: Final = 1 << 14
"""Bytes that are decompressed at a time where it is unknown how many belong to the member."""


def read_zip(reader: ByteReader) -> Iterator[Member]:
    """The members; raises `Invalid`, also after the last one."""
    count = 0
    while (signature := reader.exactly(4)) == LOCAL:
        count += 1
        member = _Local(reader)
        content = member.content(reader)
        yield Member(member.name, member.name.endswith("/"), member.claimed, content)
        for _ in content:
            pass
    _check_list(reader, signature, count)


def _check_list(reader: ByteReader, signature: bytes, count: int) -> None:
    """The list at the end has as many members, none of them a link or a device."""
    while signature == _CENTRAL:
        fields = _CENTRAL_FIELDS.unpack(reader.exactly(_CENTRAL_FIELDS.size))
        flags, name_size, extra, comment, attributes = fields[2], *fields[9:12], fields[14]
        name = reader.exactly(name_size)
        reader.skip(extra + comment)
        kind = stat.S_IFMT(attributes >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            what = "a symbolic link" if kind == stat.S_IFLNK else "a device"
            raise refused(_text(name, flags, {}), f"{what} cannot be stored")
        count -= 1
        if count < 0:
            break
        signature = reader.exactly(4)
    if signature == _END_64:
        (size,) = _LENGTH_64.unpack(reader.exactly(_LENGTH_64.size))
        reader.skip(size)
        signature = reader.exactly(4)
    if signature == _LOCATOR_64:
        reader.skip(16)
        signature = reader.exactly(4)
    if signature != END:
        raise broken("it is damaged")
    *_, comment = _END_FIELDS.unpack(reader.exactly(_END_FIELDS.size))
    reader.skip(comment)
    if count:
        raise broken("its list of members does not fit")


@dataclass(slots=True)
class _Found:
    """What a member's content has turned out to be."""

    crc: int = 0
    compressed: int = 0
    size: int = 0

    def add(self, piece: bytes) -> bytes:
        self.crc = zlib.crc32(piece, self.crc)
        self.size += len(piece)
        return piece


class _Local:
    """The header in front of a member. Raises `Invalid` for one that no stream can hold."""

    def __init__(self, reader: ByteReader) -> None:
        fields = _LOCAL_FIELDS.unpack(reader.exactly(_LOCAL_FIELDS.size))
        _, flags, self._method, _, _, self._crc, self._compressed, self._size = fields[:8]
        name, extra = reader.exactly(fields[8]), _extra(reader.exactly(fields[9]))
        self.name = _text(name, flags, extra)
        self._sizes_follow = bool(flags & _SIZES_FOLLOW)
        if flags & _ENCRYPTED:
            raise refused(self.name, "it is encrypted")
        if self._method not in {_STORED, _DEFLATED}:
            method = _METHODS.get(self._method, f"method {self._method}")
            raise refused(self.name, f"it is compressed by {method}, not by deflate")
        if _FULL in {self._compressed, self._size}:
            self._size, self._compressed = self._sizes_64(extra.get(_ZIP64, b""))

    def _sizes_64(self, extra: bytes) -> tuple[int, int]:
        """The sizes of which the header has no room; the extra field holds only those."""
        sizes = [self._size, self._compressed]
        for place, size in enumerate(sizes):
            if size == _FULL and len(extra) >= _LENGTH_64.size:
                (sizes[place],) = _LENGTH_64.unpack_from(extra)
                extra = extra[_LENGTH_64.size :]
        return sizes[0], sizes[1]

    @property
    def claimed(self) -> int | None:
        return None if self._sizes_follow else self._size

    def content(self, reader: ByteReader) -> Iterator[bytes]:
        found = _Found()
        if self._method == _DEFLATED:
            yield from self._inflated(reader, found)
        elif not self._sizes_follow or self._compressed:
            found.compressed = self._compressed
            yield from map(found.add, reader.pieces(self._compressed))
        elif not _descriptor(reader, found):
            raise refused(self.name, "its size does not stand in front of it; compress it instead")
        self._check_may_hold(found.size)
        if self._sizes_follow:
            size = _descriptor(reader, found)
            reader.skip(size)
            is_whole = bool(size)
        else:
            expected = (self._crc, self._compressed, self._size)
            is_whole = expected == (found.crc, found.compressed, found.size)
        if not is_whole:
            raise self._damaged()

    def _check_may_hold(self, content: object) -> None:
        if content and self.name.endswith("/"):
            raise refused(self.name, "a directory has no content")

    def _damaged(self) -> Invalid:
        return broken(f"{shortened(self.name)!r} is damaged or cut off")

    def _inflated(self, reader: ByteReader, found: _Found) -> Iterator[bytes]:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while not inflater.eof:
            data = inflater.unconsumed_tail
            if not data:
                left = _STEP if self._sizes_follow else self._compressed - found.compressed
                data = reader.some(min(left, PIECE)) if left else b""
                found.compressed += len(data)
            try:
                piece = inflater.decompress(data, PIECE)
            except zlib.error as error:
                raise self._damaged() from error
            if piece:
                self._check_may_hold(piece)  # nobody counts what comes out of a directory
                yield found.add(piece)
            elif not data:
                raise self._damaged()
        unused = len(inflater.unused_data)
        found.compressed -= unused
        reader.unread(unused)


def _descriptor(reader: ByteReader, found: _Found) -> int:
    """The length of the record behind a member that fits what was found; 0 if it does not.

    Its signature is optional, and its sizes have 4 or 8 bytes, which nothing announces.
    """
    wide = _SIZES_64.pack(found.crc, found.compressed, found.size)
    narrow = _SIZES.pack(found.crc, found.compressed & _FULL, found.size & _FULL)
    following = reader.peek(len(_DESCRIPTOR) + len(wide))
    for record in (_DESCRIPTOR + wide, wide, _DESCRIPTOR + narrow, narrow):
        if following.startswith(record):
            return len(record)
    return 0


def _extra(data: bytes) -> dict[int, bytes]:
    """The extra fields of a header by id; what is no field at the end is ignored."""
    found, at = {}, 0
    while at + _EXTRA.size <= len(data):
        kind, size = _EXTRA.unpack_from(data, at)
        at += _EXTRA.size
        found[kind] = data[at : at + size]
        at += size
    return found


def _text(name: bytes, flags: int, extra: dict[int, bytes]) -> str:
    """A name: UTF-8 where it is so (many programs do not say it), else code page 437.

    Windows programs of old separate by backslashes.
    """
    better = extra.get(_UNICODE_PATH, b"")
    if better[:1] == b"\x01" and better[1:5] == zlib.crc32(name).to_bytes(4, "little"):
        name = better[5:]
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = name.decode("utf-8", "surrogateescape") if flags & _UTF_8 else name.decode("cp437")
    return text.replace("\\", "/")
