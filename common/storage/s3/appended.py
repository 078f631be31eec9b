"""A file that arrives in portions, in S3: a multipart upload, continued by any process.

The sizes of the parts follow from the file's length: so the offset alone says which parts are
there, and which bytes come next. A portion that ends within a part leaves the part's beginning as
an object of its own, named by the part's number: it is read once more when the rest arrives, and
holds at least what was confirmed of the part, even if more was written since.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from common.storage.budget import SMALLEST, HeldParts, PartBudget
from common.storage.errors import NotFound, StagedBytesLost, StorageError
from common.storage.paths import RESERVED_USER_NAME
from common.storage.protocol import Entry
from common.storage.resumable import Staged
from common.storage.s3.bucket import Bucket, storage_errors
from common.storage.s3.part import Part
from common.storage.s3.part_sizes import PART_BYTES, PartSizes
from common.storage.s3.upload import UNCOUNTED, Multipart

_IN_FLIGHT: Final = 3 * PART_BYTES
"""Bytes of an upload that are on their way to S3; one part at least."""


class StagedObjects:
    """The staged files of one bucket, below the key prefix `start`."""

    def __init__(self, bucket: Bucket, start: str) -> None:
        self._bucket = bucket
        self._start = f"{start}{RESERVED_USER_NAME}/"

    async def begin(self, key: str) -> str:
        """Begin a multipart upload of `key`; returns its id."""
        with storage_errors():
            answer = await self._bucket.client.create_multipart_upload(
                Bucket=self._bucket.name, Key=key
            )
        return str(answer["UploadId"])

    @asynccontextmanager
    async def append(
        self, key: str, staged: Staged, offset: int, budget: PartBudget
    ) -> AsyncIterator["S3Appender"]:
        """Go on from `offset`. Raises `NotFound`.

        Where the block raises nothing, what it settled is confirmed.
        """
        with budget.upload(staged.path.user) as held:
            appender = S3Appender(self, self._multipart(key, staged.name), staged, offset, held)
            try:
                await appender.read_beginning()
                yield appender
                await appender.forget_beginning()
            finally:
                await appender.cancel()

    async def place(self, key: str, staged: Staged) -> str:
        """Create the object from its parts; returns its ETag.

        Raises `NotFound` and `StagedBytesLost`.
        """
        multipart = self._multipart(key, staged.name)
        if not staged.length:
            etag = await self._bucket.put(key)
            await multipart.abort()
            return etag
        try:
            if await multipart.find_parts() != staged.length:
                raise StagedBytesLost("the staged file lacks bytes")
        except NotFound:  # the process that placed it was killed before it came to the next line
            await self._bucket.delete_below(self._prefix(staged.name))
            raise
        etag = await multipart.complete()
        await self._bucket.delete_below(self._prefix(staged.name))
        return etag

    async def abandon(self, key: str, staged: Staged) -> None:
        await self._multipart(key, staged.name).abort()
        await self._bucket.delete_below(self._prefix(staged.name))

    def _multipart(self, key: str, name: str) -> Multipart:
        return Multipart(self._bucket, key, name)

    def _prefix(self, name: str) -> str:
        return f"{self._start}{name}/"

    async def store_beginning(self, name: str, number: int, part: Part) -> None:
        """Keep the beginning of part `number`."""
        await self._bucket.put(f"{self._prefix(name)}{number}", part)

    async def forget_beginning(self, name: str, number: int) -> None:
        await self._bucket.delete(f"{self._prefix(name)}{number}")

    async def read_beginning(self, name: str, number: int, length: int) -> AsyncIterator[bytes]:
        """The first `length` bytes of part `number`. Raises `NotFound` and `StagedBytesLost`."""
        with storage_errors():
            answer = await self._bucket.client.get_object(
                Bucket=self._bucket.name,
                Key=f"{self._prefix(name)}{number}",
                Range=f"bytes=0-{length - 1}",
            )
            async with answer["Body"] as body:
                while chunk := await body.read(SMALLEST):
                    length -= len(chunk)
                    yield chunk
        if length:
            raise StagedBytesLost("the staged file lacks bytes")


class S3Appender:
    """An `Appender`: parts are sent, a few at a time, as soon as they are whole."""

    def __init__(
        self,
        objects: StagedObjects,
        multipart: Multipart,
        staged: Staged,
        offset: int,
        held: HeldParts,
    ) -> None:
        self.step = PartSizes.step
        self.safe = offset
        self._objects = objects
        self._multipart = multipart
        self._staged = staged
        self._held = held
        self._sizes = PartSizes(staged.length)
        self._index, self._start = self._sizes.locate(offset)
        self._part = Part()
        self._began_within: int | None = None
        self._in_flight: deque[tuple[asyncio.Task[None], int]] = deque()

    async def read_beginning(self) -> None:
        """Read what is there of the part that is not whole yet."""
        length, number = self.safe - self._start, self._index + 1
        if length:
            self._began_within = number
            found = self._objects.read_beginning(self._staged.name, number, length)
            async for chunk in found:
                await self._add(chunk)

    async def write(self, data: bytes | bytearray) -> None:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                size = self._sizes.of(self._index)
                piece = bytes(view[done : done + size - self._part.size])
                await self._add(piece)
                done += len(piece)
                if self._part.size == size:
                    await self._send()
        self._note_sent()

    async def settle(self) -> None:
        end = self._start + self._part.size
        if self._part.size and end == self._staged.length:
            await self._send()
        elif self._part.size and end != self.safe:
            await self._objects.store_beginning(self._staged.name, self._index + 1, self._part)
        while self._in_flight:
            await self._first_sent()
        self.safe = end

    async def forget_beginning(self) -> None:
        """Delete the beginning that was read, once its part is whole."""
        if self._began_within is not None and self._began_within <= self._index:
            with suppress(StorageError):
                await self._objects.forget_beginning(self._staged.name, self._began_within)

    async def cancel(self) -> None:
        """End what is in flight; its parts count as never written."""
        tasks = [task for task, _ in self._in_flight]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _add(self, chunk: bytes) -> None:
        if self._part.size <= UNCOUNTED < self._part.size + len(chunk):
            await self._held.acquire()
        self._part.append(chunk)

    async def _send(self) -> None:
        part, self._part = self._part, Part()
        self._index += 1
        self._start += part.size
        while len(self._in_flight) >= max(1, _IN_FLIGHT // part.size):
            await self._first_sent()
        task = asyncio.create_task(self._send_part(self._index, part))
        self._in_flight.append((task, self._start))

    async def _send_part(self, number: int, part: Part) -> None:
        await self._multipart.upload(number, part, goes_on=True)
        if part.size > UNCOUNTED:
            self._held.release()

    async def _first_sent(self) -> None:
        """Wait until the part is sent that has been in flight longest."""
        task, end = self._in_flight[0]
        await asyncio.wait([task])
        task.result()
        self._in_flight.popleft()
        self.safe = end

    def _note_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done():
            task, end = self._in_flight.popleft()
            task.result()
            self.safe = end


def placed_entry(staged: Staged, etag: str, old: Entry | None) -> Entry:
    """The entry of a file that was placed over `old`."""
    size = old.size if old else 0
    path = "/".join(staged.path.parts)
    return Entry(path, staged.length, None, etag, size or 0, is_distinct=True)
