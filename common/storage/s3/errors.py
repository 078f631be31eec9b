"""What the errors of S3 and of its client mean for a storage."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from common.storage.errors import (
    InvalidPath,
    NotFound,
    OutOfSpace,
    StorageError,
    StorageUnavailable,
)

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL = frozenset({"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull"})


def code_of(error: ClientError) -> str:
    """S3's word for the error; the bare HTTP status where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the client raises into a `StorageError`; no address or key id gets through."""
    try:
        yield
    except ClientError as error:
        raise _translate(error) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise StorageUnavailable(f"S3 does not answer ({type(error).__name__})") from error


def _translate(error: ClientError) -> StorageError:
    code = code_of(error)
    if code in _MISSING:
        return NotFound("there is nothing at this path")
    if code == "KeyTooLongError":
        return InvalidPath("the path is longer than S3 can hold")
    if code in _FULL or status_of(error) == 507:
        return OutOfSpace("the storage is full")
    return StorageUnavailable(f"S3 refuses ({code})")
