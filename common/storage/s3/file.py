"""An S3 object, opened for reading."""

from collections.abc import AsyncGenerator

from common.storage.budget import Pieces
from common.storage.errors import NotFound, StorageUnavailable
from common.storage.protocol import SMALL_FILE, Entry
from common.storage.s3.bucket import Bucket
from common.storage.s3.errors import translated


class S3File:
    """An `OpenFile` that asks for the version which it was opened on, and for no other."""

    def __init__(self, bucket: Bucket, key: str, entry: Entry, pieces: Pieces) -> None:
        self._bucket = bucket
        self._key = key
        self._pieces = pieces
        self.entry = entry

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        if length <= 0:
            return
        with translated():
            answer = await self._bucket.client.get_object(
                Bucket=self._bucket.name,
                Key=self._key,
                Range=f"bytes={offset}-{offset + length - 1}",
                IfMatch=f'"{self.entry.etag}"',
            )
        async with answer["Body"] as body:
            left = length
            while left > 0:
                with translated():
                    piece = await body.read(min(self._pieces.size, left))
                if not piece:
                    raise StorageUnavailable("S3 has closed the connection early")
                left -= len(piece)
                yield piece


async def read_if_small(bucket: Bucket, key: str) -> bytes | None:
    """The object's bytes, if there is one and it is small."""
    try:
        with translated():
            answer = await bucket.client.get_object(Bucket=bucket.name, Key=key)
            async with answer["Body"] as body:
                if answer["ContentLength"] > SMALL_FILE:
                    return None
                content: bytes = await body.read()
                return content
    except NotFound:
        return None
