"""Streaming an upload to S3: no temporary file, constant memory, parts sent side by side."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from common.storage.bounded import BoundedTasks
from common.storage.s3.bucket import Bucket
from common.storage.s3.multipart import begin
from common.storage.s3.part import Part
from common.storage.s3.room import Room, Share

PART_BYTES: Final = 8 << 20
_PARTS_IN_FLIGHT: Final = 3
_PARTS_PER_SIZE: Final = 1_000

_NEEDS_ROOM: Final = 256 << 10
"""Smaller parts, which are the whole of small files, do not count."""


async def upload(
    bucket: Bucket, key: str, chunks: AsyncIterator[bytes], room: Room
) -> tuple[int, str]:
    """Store what `chunks` yields; returns its size and ETag. A failure leaves nothing behind.

    What fits into one part takes one request. Cancelled while the last request is on its way, the
    file may be there, whole. (Parts of killed processes are for a lifecycle rule of the bucket.)
    """
    with room.share() as share:
        async with aclosing(_in_parts(chunks, share)) as parts:
            part, is_last = await anext(parts)
            if is_last:
                return part.size, await bucket.put(key, part)
            async with begin(bucket, key) as multipart:

                async def send(number: int, part: Part) -> None:
                    await multipart.upload(number, part)
                    if part.size > _NEEDS_ROOM:
                        share.give()

                size, number = part.size, 1
                async with BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
                    await tasks.start(send, number, part)
                    del part  # or it would be kept until the next one has come
                    async for part, _ in parts:
                        size, number = size + part.size, number + 1
                        await tasks.start(send, number, part)
                        del part
                return size, await multipart.complete()


async def _in_parts(
    chunks: AsyncIterator[bytes], share: Share
) -> AsyncGenerator[tuple[Part, bool], None]:
    """Parts of at least the size that S3 wants, and whether each is the last (maybe empty) one."""
    part = Part()
    number = 0
    async for chunk in chunks:
        if part.size >= _part_bytes(number):
            yield part, False
            part = Part()
            number += 1
        if part.size <= _NEEDS_ROOM < part.size + len(chunk):
            await share.take()
        part.append(chunk)
    yield part, True


def _part_bytes(number: int) -> int:
    """Parts grow with their number: S3 takes 10 000 of them, which thus hold 430 GiB."""
    return PART_BYTES * (1 + number // _PARTS_PER_SIZE)
