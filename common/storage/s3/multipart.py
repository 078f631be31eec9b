"""Multipart uploads to S3: begun, then completed or aborted, so that no parts are left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from common.storage.errors import StorageError
from common.storage.s3.bucket import Bucket
from common.storage.s3.errors import translated
from common.storage.s3.part import Part


class Multipart:
    """One multipart upload under way."""

    def __init__(self, bucket: Bucket, key: str, upload_id: str) -> None:
        self._bucket = bucket
        self._request = {"Bucket": bucket.name, "Key": key, "UploadId": upload_id}
        self._etags: dict[int, str] = {}

    async def upload(self, number: int, part: Part) -> None:
        """Send part `number`, counted from 1."""
        with translated():
            answer = await self._bucket.client.upload_part(
                **self._request, PartNumber=number, Body=part
            )
        self._etags[number] = answer["ETag"]

    async def copy(self, number: int, source: dict[str, Any]) -> None:
        """Take part `number` from another object (`source`: the request's `CopySource*`)."""
        with translated():
            answer = await self._bucket.client.upload_part_copy(
                **self._request, PartNumber=number, **source
            )
        self._etags[number] = answer["CopyPartResult"]["ETag"]

    async def complete(self, **condition: str) -> str:
        """Make the object out of its parts; returns its ETag without quotes."""
        parts = [
            {"PartNumber": number, "ETag": etag} for number, etag in sorted(self._etags.items())
        ]
        with translated():
            answer = await self._bucket.client.complete_multipart_upload(
                **self._request, MultipartUpload={"Parts": parts}, **condition
            )
        return str(answer["ETag"]).strip('"')

    async def abort(self) -> None:
        with suppress(StorageError), translated():
            await self._bucket.client.abort_multipart_upload(**self._request)


@asynccontextmanager
async def begin(bucket: Bucket, key: str) -> AsyncIterator[Multipart]:
    """A multipart upload that is aborted if the body fails or is cancelled."""
    with translated():
        answer = await bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    multipart = Multipart(bucket, key, answer["UploadId"])
    try:
        yield multipart
    except BaseException:
        # Goes on by itself if this task is cancelled once more.
        aborting = asyncio.ensure_future(multipart.abort())
        _aborting.add(aborting)
        aborting.add_done_callback(_aborting.discard)
        await asyncio.shield(aborting)
        raise


async def abort_stale(bucket: Bucket, prefix: str, *, age: float) -> int:
    """Abort uploads below `prefix` begun more than `age` seconds ago; returns how many.

    Whoever began them was killed: nobody uploads for that long.
    """
    bound = datetime.now(UTC) - timedelta(seconds=age)
    with translated():
        answer = await bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=prefix)
    stale = [item for item in answer.get("Uploads", ()) if item["Initiated"] < bound]
    for item in stale:
        await Multipart(bucket, item["Key"], item["UploadId"]).abort()
    return len(stale)


_aborting: set[asyncio.Future[None]] = set()
"""Keeps the tasks alive: asyncio itself only has weak references to them."""
