"""What an archive holds, as its bytes arrive, and the faults for which it is refused. Blocking."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.http.errors import Fault, Invalid, misnamed

PIECE: Final = 1 << 18
"""Most bytes of a member's content that come in one step, however well they were compressed."""

_LOCATION: Final = ["body", "file"]


@dataclass(slots=True)
class Member:
    """A file or a directory; its content is to be read before the next member.

    `size` is what the archive claims, None if that follows the content.
    """

    name: str
    is_directory: bool
    size: int | None
    content: Iterator[bytes]


def refused(name: str, reason: object) -> Invalid:
    """The fault of one member, which makes the whole archive one that is not taken."""
    return Invalid(Fault(_LOCATION, misnamed(name, Exception(reason)), "value_error"))


def broken(reason: str) -> Invalid:
    """The fault of an archive that cannot be read."""
    return Invalid(Fault(_LOCATION, f"The archive cannot be read: {reason}", "archive_invalid"))


class ByteReader:
    """Reads chunks by numbers of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def some(self, most: int) -> bytes:
        """Up to `most` bytes, as they come; empty at the end."""
        if self._at == len(self._chunk):
            self._chunk, self._at = next(self._chunks, b""), 0
        data = self._chunk[self._at : self._at + most]
        self._at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes. Raises `Invalid` if there are fewer."""
        data = self.some(size)
        while len(data) < size:
            more = self.some(size - len(data))
            if not more:
                raise broken("it ends early")
            data += more
        return data

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, which are read again."""
        while len(self._chunk) - self._at < size:
            more = next(self._chunks, b"")
            if not more:
                break
            self._chunk, self._at = self._chunk[self._at :] + more, 0
        return self._chunk[self._at : self._at + size]

    def unread(self, count: int) -> None:
        """The last `count` bytes that the latest `some` returned are read again."""
        self._at -= count

    def pieces(self, size: int) -> Iterator[bytes]:
        """`size` bytes, a piece at a time. Raises `Invalid` if there are fewer."""
        while size:
            data = self.some(min(size, PIECE))
            if not data:
                raise broken("it ends early")
            size -= len(data)
            yield data

    def skip(self, size: int) -> None:
        """Raises `Invalid` if there are fewer bytes."""
        for _ in self.pieces(size):
            pass
