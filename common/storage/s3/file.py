"""Read objects in S3."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from common.storage.budget import ChunkBudget
from common.storage.errors import NotFound, StorageUnavailable
from common.storage.protocol import SMALL_FILE, Blocks, Entry
from common.storage.s3.bucket import Bucket, storage_errors


class S3File:
    """An `OpenFile` that requests exactly the version for which it was opened."""

    def __init__(self, bucket: Bucket, key: str, entry: Entry, budget: ChunkBudget) -> None:
        self._bucket = bucket
        self._key = key
        self._budget = budget
        self.entry = entry

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        if length <= 0:
            return
        with storage_errors():
            answer = await self._bucket.client.get_object(
                Bucket=self._bucket.name,
                Key=self._key,
                Range=f"bytes={offset}-{offset + length - 1}",
                IfMatch=f'"{self.entry.etag}"',
            )
        async with answer["Body"] as body:
            left = length
            while left > 0:
                with storage_errors():
                    chunk = await body.read(min(self._budget.size, left))
                if not chunk:
                    raise StorageUnavailable("S3 has closed the connection early")
                left -= len(chunk)
                yield chunk

    async def read_blocks(self, blocks: Blocks) -> AsyncGenerator[bytearray, None]:
        left = self.entry.size or 0
        async with aclosing(self.read(0, left)) as chunks:
            rest = memoryview(b"")
            while left > 0:
                length = min(blocks.most(self._budget.size), left)
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
