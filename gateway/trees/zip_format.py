"""The subset of the zip format (PKWARE's APPNOTE.TXT) for a streamed archive of stored files. Pure.

A file whose checksum is not known beforehand is sent in stored blocks of deflate (RFC 1951, section
3.2.4), which end by themselves: readers of a pipe accept no other member whose checksum follows it.

Records of zip64 are written only for sizes of 4 GiB and more and for more than 65 534 members: old
tools do not understand them.
"""

import struct
import time
from binascii import crc32
from collections.abc import Iterator
from typing import Final

from common.storage.protocol import Blocks

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_BLOCK: Final = struct.Struct("<B2H")

_PLAIN: Final = 20
_ZIP64: Final = 45
"""Versions of the format that a reader needs to support."""

_MADE_ON_UNIX: Final = (3 << 8) | _ZIP64
_SUMS_FOLLOW: Final = 1 << 3
_IS_UTF8: Final = 1 << 11

_STORED: Final = 0
_DEFLATED: Final = 8

_MAX16: Final = 0xFFFF
_MAX32: Final = 0xFFFF_FFFF
_FILE_MODE: Final = 0o100644 << 16
_DIRECTORY_MODE: Final = (0o40755 << 16) | 0x10
_FIRST: Final = 315_619_200.0  # 1980-01-02: zip has no earlier dates
_LAST: Final = 4_354_732_800.0  # 2107-12-31: and no later ones
_CHUNK: Final = 1 << 18


BLOCKS: Final = Blocks(size=_MAX16, room=_BLOCK.size)
"""What the content of a streamed file is cut into."""


class Archive:
    """Creates the records of an archive, in the order in which they are sent.

    Files are stored, not compressed: images hardly shrink. The central directory is held until the
    end: about 50 bytes and the name of each member. Names are relative, a directory's ends in a
    slash; `modified` is in seconds since the epoch, and is written in UTC.
    """

    def __init__(self) -> None:
        self._size = 0
        self._count = 0
        self._directory = bytearray()

    def whole(self, name: str, modified: float | None, content: bytes = b"") -> bytes:
        """The record of a file with this content, or of a directory."""
        member = _Member(name, modified, len(content), checksum=crc32(content))
        head = member.head()
        self._note(member, len(head) + len(content))
        return head + content

    def begin(self, name: str, modified: float | None, size: int) -> tuple[bytes, "Streamed"]:
        """The record before a file's content, which goes through `Streamed.pack`; call `finish` for
        the record after it."""
        member = Streamed(name, modified, size)
        return member.head(), member

    def finish(self, member: "Streamed") -> bytes:
        """The record after the content of a file that was begun and packed completely."""
        descriptor = member.descriptor()
        self._note(member, len(member.head()) + member.packed_size + len(descriptor))
        return (b"" if member.size else member.next_block()) + descriptor

    def skip(self, name: str, size: int, *, streamed: bool) -> None:
        """Account for a file or directory without its content, to measure an archive."""
        if streamed:
            self.finish(self.begin(name, None, size)[1])
        else:
            member = _Member(name, None, size)
            self._note(member, len(member.head()) + size)

    def length(self) -> int:
        """The bytes of the whole archive, as of now."""
        return self._size + len(self._directory) + len(self._end_records())

    def _note(self, member: "_Member", length: int) -> None:
        self._directory += member.entry(self._size)
        self._count += 1
        self._size += length

    def end(self) -> Iterator[memoryview]:
        """The central directory and its position (sections 4.3.12 to 4.3.16)."""
        self._directory += self._end_records()
        view = memoryview(self._directory)
        for position in range(0, len(view), _CHUNK):
            yield view[position : position + _CHUNK]

    def _end_records(self) -> bytes:
        start, size, count = self._size, len(self._directory), self._count
        records = b""
        if count >= _MAX16 or size >= _MAX32 or start >= _MAX32:
            facts = (count, count, size, start)
            records += _END64.pack(b"PK\6\6", 44, _MADE_ON_UNIX, _ZIP64, 0, 0, *facts)
            records += _LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
        count = min(count, _MAX16)
        facts = (count, count, min(size, _MAX32), min(start, _MAX32))
        return records + _END.pack(b"PK\5\6", 0, 0, *facts, 0)


class _Member:
    """A file or directory, stored as it is."""

    method = _STORED

    def __init__(self, name: str, modified: float | None, size: int, *, checksum: int = 0) -> None:
        self.size = self.packed_size = size
        self.checksum = checksum
        self._name = name.encode("utf-8", "replace")
        self._stamp = _stamp(modified)
        self._flags = 0 if name.isascii() else _IS_UTF8

    def head(self) -> bytes:
        """The record before the content (section 4.3.7)."""
        return self._head(_PLAIN, self.checksum, self.packed_size, self.size)

    def _head(self, version: int, *sums: int, extra: bytes = b"") -> bytes:
        lengths = (len(self._name), len(extra))
        fixed = _LOCAL.pack(
            b"PK\3\4", version, self._flags, self.method, *self._stamp, *sums, *lengths
        )
        return fixed + self._name + extra

    def entry(self, offset: int) -> bytes:
        """The record in the central directory (section 4.3.12); the local one is at `offset`."""
        numbers = (self.size, self.packed_size, offset)
        large = [number for number in numbers if number >= _MAX32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        fixed = _CENTRAL.pack(
            b"PK\1\2",
            _MADE_ON_UNIX,
            _ZIP64 if large else _PLAIN,
            self._flags,
            self.method,
            *self._stamp,
            self.checksum,
            min(self.packed_size, _MAX32),
            min(self.size, _MAX32),
            len(self._name),
            len(extra),
            0,
            0,
            0,
            _DIRECTORY_MODE if self._name.endswith(b"/") else _FILE_MODE,
            min(offset, _MAX32),
        )
        return fixed + self._name + extra


class Streamed(_Member):
    """A file whose checksum and sizes follow its content."""

    method = _DEFLATED

    def __init__(self, name: str, modified: float | None, size: int) -> None:
        super().__init__(name, modified, size)
        self._flags |= _SUMS_FOLLOW
        self.packed_size = size + _BLOCK.size * max(1, -(-size // _MAX16))
        self._is_large = self.packed_size > _MAX32
        self._unpacked = size

    def head(self) -> bytes:
        if self._is_large:  # the sizes that follow take eight bytes
            extra = struct.pack("<2H2Q", 1, 16, 0, 0)
            return self._head(_ZIP64, 0, _MAX32, _MAX32, extra=extra)
        return self._head(_PLAIN, 0, 0, 0)

    def pack(self, chunk: bytearray) -> None:
        """Complete the next of the content's `BLOCKS`. All chunks have the member's size."""
        view, start = memoryview(chunk), 0
        while start < len(chunk):
            record = self.next_block()
            content = start + len(record)
            view[start:content] = record
            start = content + _MAX16
            self.checksum = crc32(view[content:start], self.checksum)

    def next_block(self) -> bytes:
        """The record before each block's bytes; an empty file has one as well."""
        size = min(_MAX16, self._unpacked)
        self._unpacked -= size
        is_last = self._unpacked == 0
        return _BLOCK.pack(is_last, size, size ^ _MAX16)

    def descriptor(self) -> bytes:
        """The record after the content (section 4.3.9)."""
        form = "<4sLQQ" if self._is_large else "<4sLLL"
        return struct.pack(form, b"PK\7\10", self.checksum, self.packed_size, self.size)


def _stamp(modified: float | None) -> tuple[int, int]:
    """Time and date in the format of MS-DOS (section 4.4.6)."""
    moment = time.gmtime(min(max(modified or 0.0, _FIRST), _LAST))
    clock = moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
    return clock, (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
