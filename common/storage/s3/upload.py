"""Uploads to S3: streamed without a temporary file, in constant memory, parts in parallel."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.runtime.tasks import BoundedTasks
from common.storage.budget import HeldParts, PartBudget
from common.storage.errors import NotFound, StorageError
from common.storage.protocol import Chunk
from common.storage.resumable import Known, none_known
from common.storage.s3.bucket import Bucket, storage_errors
from common.storage.s3.part import Part
from common.storage.s3.part_sizes import part_bytes

_PARTS_IN_FLIGHT: Final = 3

UNCOUNTED: Final = 256 << 10
"""Bytes up to which a part is not counted in the part budget: it is all of a small file."""


_aborting: set[asyncio.Future[None]] = set()
"""Keeps these tasks alive: asyncio holds only weak references to them."""


async def upload(
    bucket: Bucket, key: str, chunks: AsyncIterator[Chunk], budget: PartBudget, *, user: str
) -> tuple[int, str]:
    """Store what `chunks` yields; returns its size and ETag. A failure leaves nothing behind.

    What fits into one part takes one request. If this is cancelled during the last request, the
    complete file may be stored. Parts of killed processes are left to `abort_stale` and to a
    lifecycle rule of the bucket.
    """
    with budget.upload(user) as held:
        async with aclosing(_in_parts(chunks, held)) as parts:
            part, is_last = await anext(parts)
            if is_last:
                return part.size, await bucket.put(key, part)
            async with begin_multipart(bucket, key) as multipart:

                async def send(number: int, part: Part) -> None:
                    await multipart.upload(number, part)
                    if part.size > UNCOUNTED:
                        held.release()

                size, number = part.size, 1
                async with BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
                    await tasks.start(send, number, part)
                    del part  # else it would stay in memory until the next part is complete
                    async for part, _ in parts:
                        size, number = size + part.size, number + 1
                        await tasks.start(send, number, part)
                        del part
                return size, await multipart.complete()


async def upload_parts(
    multipart: "Multipart", chunks: AsyncIterator[bytes], budget: PartBudget, *, user: str
) -> int:
    """Send what `chunks` yields, at least one part, and complete nothing; returns its size."""
    size = number = 0
    with budget.upload(user) as held:

        async def send(number: int, part: Part) -> None:
            await multipart.upload(number, part)
            if part.size > UNCOUNTED:
                held.release()

        parts = _in_parts(chunks, held)
        async with aclosing(parts), BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
            async for part, _ in parts:
                size, number = size + part.size, number + 1
                await tasks.start(send, number, part)
                del part
    return size


async def _in_parts(
    chunks: AsyncIterator[Chunk], held: HeldParts
) -> AsyncGenerator[tuple[Part, bool], None]:
    """Parts of at least the size that S3 requires; True: the last one, which may be empty."""
    part = Part()
    number = 0
    async for chunk in chunks:
        if part.size >= part_bytes(number):
            yield part, False
            part = Part()
            number += 1
        if part.size <= UNCOUNTED < part.size + len(chunk):
            await held.acquire()
        part.append(chunk)
    yield part, True


class Multipart:
    """A multipart upload that was begun."""

    def __init__(
        self, bucket: Bucket, key: str, upload_id: str, etags: tuple[str, ...] = ()
    ) -> None:
        """`etags`: of the parts that were sent before, the first ones."""
        self._bucket = bucket
        self._request = {"Bucket": bucket.name, "Key": key, "UploadId": upload_id}
        self._etags = dict(enumerate(etags, 1))

    async def upload(self, number: int, part: Part, *, goes_on: bool = False) -> None:
        """Send part `number`; the first is 1.

        Raises `NotFound` if `goes_on`, that is if other processes have sent parts, and the upload
        has ended: no other attempt can go on with it.
        """
        with storage_errors(missing_upload=goes_on):
            answer = await self._bucket.client.upload_part(
                **self._request, PartNumber=number, Body=part
            )
        self._etags[number] = answer["ETag"]

    @property
    def etags(self) -> tuple[str, ...]:
        """Those of the parts that were sent, by number."""
        return tuple(etag for _, etag in sorted(self._etags.items()))

    async def copy(self, number: int, source: dict[str, Any]) -> None:
        """Copy part `number` from another object (`source`: the request's `CopySource*`)."""
        with storage_errors():
            answer = await self._bucket.client.upload_part_copy(
                **self._request, PartNumber=number, **source
            )
        self._etags[number] = answer["CopyPartResult"]["ETag"]

    async def find_parts(self) -> int:
        """Find the parts that other processes have sent; returns their size. Raises `NotFound`."""
        request: dict[str, Any] = {**self._request}
        size = 0
        while True:
            with storage_errors(missing_upload=True):
                answer = await self._bucket.client.list_parts(**request)
            parts = answer.get("Parts", ())
            self._etags |= {item["PartNumber"]: item["ETag"] for item in parts}
            size += sum(int(item["Size"]) for item in parts)
            if not answer.get("IsTruncated"):
                return size
            request["PartNumberMarker"] = answer["NextPartNumberMarker"]

    async def complete(self, **condition: str) -> str:
        """Create the object from its parts; returns its ETag without quotes."""
        parts = [
            {"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())
        ]
        with storage_errors():
            answer = await self._bucket.client.complete_multipart_upload(
                **self._request, MultipartUpload={"Parts": parts}, **condition
            )
        return str(answer["ETag"]).strip('"')

    async def abort(self) -> None:
        """Remove what has arrived; idempotent."""
        with suppress(NotFound), storage_errors(missing_upload=True):
            await self._bucket.client.abort_multipart_upload(**self._request)

    async def try_to_abort(self) -> None:
        """Leave to `abort_stale` what cannot be removed now."""
        with suppress(StorageError):
            await self.abort()


@asynccontextmanager
async def begin_multipart(bucket: Bucket, key: str) -> AsyncIterator[Multipart]:
    """A multipart upload that is aborted if the body fails or is cancelled."""
    with storage_errors():
        answer = await bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    multipart = Multipart(bucket, key, answer["UploadId"])
    try:
        yield multipart
    except BaseException:
        # continues on its own if this task is cancelled again
        aborting = asyncio.ensure_future(multipart.try_to_abort())
        _aborting.add(aborting)
        aborting.add_done_callback(_aborting.discard)
        await asyncio.shield(aborting)
        raise


async def abort_stale(bucket: Bucket, prefix: str, known: Known = none_known, *, age: float) -> int:
    """Abort multipart uploads below `prefix` that began more than `age` seconds ago.

    Those that are not `known` were left behind by killed processes: no single request takes that
    long. Returns the number of uploads.
    """
    bound = datetime.now(UTC) - timedelta(seconds=age)
    request = {"Bucket": bucket.name, "Prefix": prefix}
    stale: list[dict[str, Any]] = []
    while True:
        with storage_errors():
            answer = await bucket.client.list_multipart_uploads(**request)
        stale += [item for item in answer.get("Uploads", ()) if item["Initiated"] < bound]
        if not answer.get("IsTruncated"):
            break
        request["KeyMarker"] = answer["NextKeyMarker"]
        request["UploadIdMarker"] = answer["NextUploadIdMarker"]
    kept = await known([item["UploadId"] for item in stale]) if stale else set()
    stale = [item for item in stale if item["UploadId"] not in kept]
    for item in stale:
        await Multipart(bucket, item["Key"], item["UploadId"]).try_to_abort()
    return len(stale)
