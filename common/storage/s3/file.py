"""Read objects in S3."""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from common.storage.budget import ChunkBudget, ReadBudget
from common.storage.errors import NotFound, StorageError, StorageUnavailable
from common.storage.protocol import SMALL_FILE, Blocks, Entry
from common.storage.s3.bucket import Bucket, storage_errors

_SHA256_BYTES: Final = 32


class S3File:
    """An `OpenFile` that requests exactly the version for which it was opened."""

    def __init__(
        self, bucket: Bucket, key: str, entry: Entry, chunks: ChunkBudget, responses: ReadBudget
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._chunks = chunks
        self._responses = responses
        self.entry = entry

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As in `OpenFile`; while the reader pauses, the response may be closed for others."""
        response: _Response | None = None
        end = offset + length
        try:
            while offset < end:
                if response is None or response.is_closed:
                    response = None
                    response = await self._request(offset, end - offset)
                chunk = await response.read(min(self._chunks.size, end - offset))
                offset += len(chunk)
                self._responses.stand(response)
                yield chunk
                self._responses.move(response)
        finally:
            if response is not None and not response.is_closed:
                self._responses.move(response)
                response.close()
                self._responses.release()

    async def read_blocks(self, blocks: Blocks) -> AsyncGenerator[bytearray, None]:
        left = self.entry.size or 0
        async with aclosing(self.read(0, left)) as chunks:
            rest = memoryview(b"")
            while left > 0:
                length = min(blocks.most(self._chunks.size), left)
                buffer, places = blocks.places(length)
                for place in places:
                    at = 0
                    while at < len(place):
                        rest = rest or memoryview(await anext(chunks))
                        part = rest[: len(place) - at]
                        place[at : at + len(part)] = part
                        at, rest = at + len(part), rest[len(part) :]
                yield buffer
                left -= length

    async def _request(self, offset: int, length: int) -> "_Response":
        await self._responses.acquire()
        try:
            with storage_errors():
                answer = await self._bucket.client.get_object(
                    Bucket=self._bucket.name,
                    Key=self._key,
                    Range=f"bytes={offset}-{offset + length - 1}",
                    IfMatch=f'"{self.entry.etag}"',
                )
        except BaseException:
            self._responses.release()
            raise
        return _Response(answer["Body"])


class _Response:
    """The body of a response that can be closed before its end."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self.is_closed = False

    async def read(self, size: int) -> bytes:
        """The next bytes. Raises `StorageUnavailable` if there are none."""
        with storage_errors():
            chunk: bytes = await self._body.read(size)
        if not chunk:
            raise StorageUnavailable("S3 has closed the connection early")
        return chunk

    def close(self) -> None:
        """Close it, and its connection unless all was read."""
        self.is_closed = True
        self._body.close()


async def read_if_small(bucket: Bucket, key: str) -> bytes | None:
    """The content of the object, if there is one and it is small."""
    try:
        with storage_errors():
            answer = await bucket.client.get_object(Bucket=bucket.name, Key=key)
            async with answer["Body"] as body:
                if answer["ContentLength"] > SMALL_FILE:
                    return None
                content: bytes = await body.read()
                return content
    except NotFound:
        return None


async def stated_sha256(bucket: Bucket, key: str, etag: str) -> str | None:
    """The SHA-256, in hexadecimal, that S3 has checked of the object with this ETag.

    None if it has none: that of an object that was sent in parts is made of their digests, and ends
    in their number.
    """
    try:
        with storage_errors():
            record = await bucket.client.head_object(
                Bucket=bucket.name, Key=key, ChecksumMode="ENABLED", IfMatch=f'"{etag}"'
            )
        digest = base64.b64decode(record.get("ChecksumSHA256", ""), validate=True)
    except (StorageError, ValueError):
        return None
    return digest.hex() if len(digest) == _SHA256_BYTES else None
