"""The body of an upload request to S3: the chunks of a file, without copying them into one."""

import os
from typing import Final

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

from common.storage.protocol import Chunk

_JOINED: Final = 1 << 15
"""Bytes up to which chunks are joined: each object costs memory, too."""


class Part(Payload):
    """A file for botocore, which measures and rewinds it; for aiohttp, a payload that can be sent
    repeatedly (retries, redirects)."""

    def __init__(self, *chunks: Chunk) -> None:
        super().__init__(None)
        self._chunks: list[Chunk] = []
        self._size: int = 0
        self._position = 0
        for chunk in chunks:
            self.append(chunk)

    @property
    def size(self) -> int:
        return self._size

    def append(self, chunk: Chunk) -> None:
        if self._chunks and len(self._chunks[-1]) < _JOINED:
            self._chunks[-1] = self._chunks[-1] + chunk  # a new object: no chunk is changed
        else:
            self._chunks.append(chunk)
        self._size += len(chunk)

    # -- a file ---------------------------------------------------------------------------
    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Only for checksums, if botocore is configured to compute them."""
        end = self._size if size < 0 else self._position + size
        found = b"".join(self._chunks)[self._position : end]
        self._position += len(found)
        return found

    # -- a body ---------------------------------------------------------------------------
    async def write(self, writer: AbstractStreamWriter) -> None:
        for chunk in self._chunks:
            await writer.write(chunk)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._chunks).decode(encoding, errors)
