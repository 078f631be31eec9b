"""Read a tar (POSIX.1-2001, pax, and GNU's) from a stream. Blocking.

`tarfile` decodes the headers. Its own loop over a stream keeps every member, reads an extended
header of any size into memory, and takes an archive that is cut off for one that ends.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Final

from gateway.files.unpacking.members import ByteReader, Member, broken, refused

BLOCK: Final = tarfile.BLOCKSIZE
_END: Final = bytes(BLOCK)

_MOST_EXTENDED: Final = 1 << 20
"""Bytes of all extended headers of one member, as many as libarchive takes."""

_EXTENDED_EACH: Final = 1 << 16
"""The same on average: no limit of what comes out counts them."""

_MOST_RECORDS: Final = 1_000
"""Records in the extended headers of one member; a record of five bytes takes two microseconds."""

_KINDS: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_REGULAR: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_PAX: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_LABEL: Final = b"V"
_SKIPPED: Final = frozenset({tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK, _LABEL})
_RECORD: Final = re.compile(rb"([0-9]{1,8}) ([^=\n]+)=")


def is_header(block: bytes) -> bool:
    """Whether a tar can begin with these bytes: a header, or its end."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return block == _END
    return True


def read_tar(reader: ByteReader) -> Iterator[Member]:
    """The members up to the block of zeros at the end; raises `Invalid`, also without that block.

    What follows it is left to the reader, as every tar does.
    """
    extended = _Extended(reader)
    while (block := reader.exactly(BLOCK)) != _END:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise broken(f"{error}") from error
        if header.size < 0:
            raise broken("a size is negative")
        if extended.take(header):
            continue
        extended.complete(header)
        yield from _read(reader, header)


def _read(reader: ByteReader, header: tarfile.TarInfo) -> Iterator[Member]:
    if header.type == tarfile.DIRTYPE:
        yield Member(header.name, True, 0, iter(()))
        return
    if header.type not in _REGULAR:
        kind = _KINDS.get(header.type, f"a member of type {header.type.decode('latin-1')!r}")
        raise refused(header.name, f"{kind} cannot be stored")
    content = reader.pieces(header.size)
    yield Member(header.name, header.name.endswith("/"), header.size, content)
    for _ in content:
        pass
    reader.skip(-header.size % BLOCK)


class _Extended:
    """The headers in front of a member that complete its own."""

    def __init__(self, reader: ByteReader) -> None:
        self._reader = reader
        self._left = _MOST_EXTENDED
        self._forget()

    def _forget(self) -> None:
        self._records = 0
        self._name: str | None = None
        self._length: int | None = None
        self._is_sparse = False

    def take(self, header: tarfile.TarInfo) -> bool:
        """Whether this is no member's own header; reads its content. Raises `Invalid`."""
        is_pax, is_name = header.type in _PAX, header.type == tarfile.GNUTYPE_LONGNAME
        if not (is_pax or is_name or header.type in _SKIPPED):
            return False
        self._left -= BLOCK + header.size
        if self._left < 0:
            raise broken(
                f"the headers of a member have more than {_MOST_EXTENDED} bytes, or those of all"
                f" more than {_EXTENDED_EACH} each"
            )
        content = self._reader.exactly(header.size)
        self._reader.skip(-header.size % BLOCK)
        if is_pax:
            self._parse(content)
        elif is_name:
            self._name = _text(content.partition(b"\0")[0])
        return True

    def _parse(self, content: bytes) -> None:
        """Records of a pax header: length, keyword, value (POSIX.1-2017, pax)."""
        at = 0
        while at < len(content):
            found = _RECORD.match(content, at)
            end = at + int(found[1]) if found else 0
            if found is None or end <= found.end() or content[end - 1 : end] != b"\n":
                raise broken("an extended header is damaged")
            self._records += 1
            if self._records > _MOST_RECORDS:
                raise broken(f"the headers of a member have more than {_MOST_RECORDS} records")
            keyword, value = found[2], content[found.end() : end - 1]
            if keyword == b"path":
                self._name = _text(value)
            elif keyword == b"size":
                if not re.fullmatch(rb"[0-9]{1,20}", value):
                    raise broken("an extended header is damaged")
                self._length = int(value)
            elif keyword.startswith(b"GNU.sparse."):
                self._is_sparse = True
            at = end

    def complete(self, header: tarfile.TarInfo) -> None:
        """Give the member what the headers in front of it said."""
        if self._name is not None:
            header.name = self._name
        if self._length is not None:
            header.size = self._length
        if self._is_sparse:
            header.type = tarfile.GNUTYPE_SPARSE
        self._left = min(_MOST_EXTENDED, self._left + _EXTENDED_EACH)
        self._forget()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
