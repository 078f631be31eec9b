"""What one request carries to S3: the pieces of a file as they came in, never copied into one."""

import os
from typing import Final

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

_LEAST: Final = 1 << 15


class Part(Payload):
    """To botocore an open file, which it measures and rewinds; to aiohttp a body that it can send
    any number of times (a retry, a redirect)."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__(None)
        self._pieces: list[bytes] = []
        self._size: int = 0
        self._position = 0
        for piece in pieces:
            self.append(piece)

    @property
    def size(self) -> int:
        return self._size

    def append(self, piece: bytes) -> None:
        """Add bytes at the end. Small ones are put together: each object takes memory, too."""
        if self._pieces and len(self._pieces[-1]) < _LEAST:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._size += len(piece)

    # -- a file ---------------------------------------------------------------------------
    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """For checksums, if botocore is ever told to make them; it sees all that is left."""
        end = self._size if size < 0 else self._position + size
        found = b"".join(self._pieces)[self._position : end]
        self._position += len(found)
        return found

    # -- a body ---------------------------------------------------------------------------
    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._pieces:
            await writer.write(piece)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._pieces).decode(encoding, errors)
