"""Copying an object within the bucket, whatever its size."""

from collections.abc import Mapping
from typing import Final

from botocore.exceptions import ClientError

from common.storage.bounded import BoundedTasks
from common.storage.errors import StorageUnavailable, TargetExists
from common.storage.protocol import Entry
from common.storage.s3.bucket import Bucket
from common.storage.s3.errors import status_of, translated
from common.storage.s3.multipart import begin

COPY_LIMIT: Final = 5 << 30
"""Largest object that S3 copies in one request."""

_PART_BYTES: Final = 1 << 30
_PARTS_IN_FLIGHT: Final = 4


async def copy(
    bucket: Bucket,
    source: str,
    facts: Entry,
    target: str,
    *,
    replace: bool,
    limit: int = COPY_LIMIT,
) -> str:
    """Copy the object at `source`, as `facts` describe it, to `target`; returns the new ETag.

    Raises `TargetExists` if nothing may be replaced, and `StorageUnavailable` if the source is
    not what it was any more.
    """
    origin = {
        "CopySource": {"Bucket": bucket.name, "Key": source},
        "CopySourceIfMatch": f'"{facts.etag}"',
    }
    condition = {} if replace else {"IfNoneMatch": "*"}
    try:
        if (facts.size or 0) > limit:
            return await _copy_parts(bucket, origin, facts.size or 0, target, condition, limit)
        with translated():
            answer = await bucket.client.copy_object(
                Bucket=bucket.name, Key=target, **origin, **condition
            )
        return str(answer["CopyObjectResult"]["ETag"]).strip('"')
    except StorageUnavailable as error:
        cause = error.__cause__
        if not (isinstance(cause, ClientError) and status_of(cause) == 412):
            raise
        if "copy-source" in str(cause.response["Error"].get("Condition", "")).lower():
            raise StorageUnavailable("the file was replaced meanwhile") from error
        raise TargetExists("there is something at the target") from error


async def _copy_parts(
    bucket: Bucket,
    origin: Mapping[str, object],
    size: int,
    target: str,
    condition: dict[str, str],
    limit: int,
) -> str:
    step = min(_PART_BYTES, limit)
    async with begin(bucket, target) as multipart:
        async with BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
            for number, start in enumerate(range(0, size, step), 1):
                end = min(start + step, size) - 1
                part = {**origin, "CopySourceRange": f"bytes={start}-{end}"}
                await tasks.start(multipart.copy, number, part)
        return await multipart.complete(**condition)
