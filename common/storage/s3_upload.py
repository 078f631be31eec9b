"""Streaming an upload to S3: no temporary file, constant memory, parts sent side by side."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from common.storage.bounded import BoundedTasks
from common.storage.s3_bucket import Bucket
from common.storage.s3_multipart import begin
from common.storage.s3_part import Part

PART_BYTES: Final = 8 << 20
_PARTS_IN_FLIGHT: Final = 3
_PARTS_PER_SIZE: Final = 1_000


async def upload(bucket: Bucket, key: str, chunks: AsyncIterator[bytes]) -> tuple[int, str]:
    """Store what `chunks` yields; returns its size and ETag. A failure leaves nothing behind.

    What fits into one part takes one request. Cancelled while the last request is on its way, the
    file may be there, whole. (Parts of killed processes are for a lifecycle rule of the bucket.)
    """
    async with aclosing(_in_parts(chunks)) as parts:
        part, is_last = await anext(parts)
        size, number = part.size, 1
        if is_last:
            return size, await bucket.put(key, part)
        async with begin(bucket, key) as multipart:
            async with BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
                await tasks.start(multipart.upload, number, part)
                async for part, _ in parts:
                    size, number = size + part.size, number + 1
                    await tasks.start(multipart.upload, number, part)
            return size, await multipart.complete()


async def _in_parts(chunks: AsyncIterator[bytes]) -> AsyncGenerator[tuple[Part, bool], None]:
    """Parts of at least the size that S3 wants, and whether each is the last (maybe empty) one."""
    part = Part()
    number = 0
    async for chunk in chunks:
        if part.size >= _part_bytes(number):
            yield part, False
            part = Part()
            number += 1
        part.append(chunk)
    yield part, True


def _part_bytes(number: int) -> int:
    """Parts grow with their number: S3 takes 10 000 of them, which thus hold 430 GiB."""
    return PART_BYTES * (1 + number // _PARTS_PER_SIZE)
