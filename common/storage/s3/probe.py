"""Try a bucket out: whether it can be listed and, if asked, written to, read and emptied again."""

from http import HTTPStatus
from typing import Final
from uuid import uuid4

from botocore.exceptions import (
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from common.storage.errors import StorageError, StorageUnavailable, StorageUnusable
from common.storage.paths import RESERVED_USER_NAME
from common.storage.s3.bucket import Bucket, storage_errors
from common.storage.s3.part import Part

_CONTENT: Final = b"probe"
_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


async def probe(bucket: Bucket, start: str, *, write: bool) -> None:
    """List a key that begins with `start`; with `write`, store, read and delete an object there."""
    try:
        await bucket.first_keys(start, 1)
        if write:
            await _write(bucket, f"{start}{RESERVED_USER_NAME}/probe-{uuid4().hex}")
    except StorageError as error:
        if (reason := _operators_fault(error)) is not None:
            raise StorageUnusable(reason) from error
        raise


async def _write(bucket: Bucket, key: str) -> None:
    await bucket.put(key, Part(_CONTENT))
    try:
        with storage_errors():
            answer = await bucket.client.get_object(Bucket=bucket.name, Key=key)
            async with answer["Body"] as body:
                if await body.read() != _CONTENT:
                    raise StorageUnavailable("an object does not hold what was written to it")
    finally:
        await bucket.delete(key)


def _operators_fault(error: StorageError) -> str | None:
    """What an operator has to change; None for an error that may pass."""
    cause = error.__cause__
    if isinstance(cause, NoCredentialsError | PartialCredentialsError | ParamValidationError):
        return " ".join(str(cause).split())
    if isinstance(error, StorageUnusable) or not isinstance(cause, ClientError):
        return None
    status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _PASSING:
        return None
    code = cause.response.get("Error", {}).get("Code", status)
    return f"S3 refuses {cause.operation_name} ({code})"
