"""The operations on one S3 bucket that a storage needs, and what S3's errors mean for it."""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from common.runtime.tasks import BoundedTasks
from common.storage.errors import (
    AccessRefused,
    FileRefused,
    InvalidPath,
    NotFound,
    OutOfSpace,
    StorageError,
    StorageUnavailable,
    StorageUnusable,
)
from common.storage.protocol import BATCH, Entry
from common.storage.s3.keys import fits_in_xml
from common.storage.s3.part import Part
from common.telemetry.logs import get_logger

_DELETES_IN_FLIGHT: Final = 4
_EXISTENCE_HOLDS: Final = 5.0
"""Seconds for which a bucket that was there counts as there."""

_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_NO_UPLOAD: Final = "NoSuchUpload"
_FULL: Final = frozenset({"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull"})


_TRIED_AGAIN: Final = frozenset(
    (
        # S3 is busy, or another request was in the way
        *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "RequestExpired"),
        *("Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
        *("OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest"),
        *(_NO_UPLOAD, "InvalidPart", "InvalidRange", "KMS.ThrottlingException"),
        # our bucket, credentials and clock are wrong: an operator's mistake, about no single file
        *("NoSuchBucket", "PermanentRedirect", "AuthorizationHeaderMalformed"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
        *("TokenRefreshRequired", "RequestTimeTooSkewed"),
    )
)
_TRIED_AGAIN_STATUSES: Final = frozenset({408, 412, 416, 429})
_IDENTIFIER: Final = re.compile(r"arn:[^\s\"']+|https?://\S+|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]+){4}")

log = get_logger()


@contextmanager
def storage_errors(*, missing_upload: bool = False) -> Iterator[None]:
    """Turn the client's errors into `StorageError`s, without addresses or key ids.

    The `ClientError` is kept as the cause (see `failed_precondition`). `missing_upload`: a
    multipart upload that is not there is `NotFound`, instead of one to be tried again as a whole.
    """
    try:
        yield
    except ClientError as error:
        if missing_upload and error.response.get("Error", {}).get("Code") == _NO_UPLOAD:
            raise NotFound("the multipart upload has ended") from error
        raise _storage_error(error) from error
    except (BotoCoreError, aiohttp.ClientError, OSError) as error:
        raise StorageUnavailable(f"S3 does not answer ({type(error).__name__})") from error


def _storage_error(error: ClientError) -> StorageError:
    # the bare HTTP status where the response had no body
    facts = error.response.get("Error", {})
    code, status = str(facts.get("Code", "")), _status(error)
    if code in _MISSING:
        return NotFound("there is nothing at this path")
    if code == "NoSuchBucket":
        return StorageUnusable("S3 has no such bucket")
    if code == "KeyTooLongError":
        return InvalidPath("the path is longer than S3 can hold")
    if code in _FULL or status == 507:
        return OutOfSpace("the storage is full")
    if status in _TRIED_AGAIN_STATUSES or not 400 <= status < 500:
        return StorageUnavailable(f"S3 refuses ({code})")
    return _refusal(code, str(facts.get("Message", "")), is_access=status == 403)


def _refusal(code: str, message: str, *, is_access: bool) -> StorageError:
    """A refusal in S3's words, without the names of accounts, buckets and keys in them."""
    if code in _TRIED_AGAIN:
        return StorageUnavailable(f"S3 refuses ({code})")
    words = _IDENTIFIER.sub("…", message).strip().rstrip(".")[:200] or "Forbidden"
    log.warning("storage.refused", code=code, reason=words)
    kind = AccessRefused if is_access and code != "InvalidObjectState" else FileRefused
    return kind(f"S3 refuses: {words} ({code})")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def failed_precondition(error: StorageUnavailable) -> str | None:
    """The condition of the request that failed (412); None for any other error."""
    cause = error.__cause__
    if not isinstance(cause, ClientError) or _status(cause) != 412:
        return None
    return str(cause.response["Error"].get("Condition", ""))


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: S3's records of objects, and the common prefixes."""

    objects: list[dict[str, Any]]
    prefixes: list[str]


def entry_from_record(path: str, record: dict[str, Any], size: str) -> Entry:
    """An entry from S3's record of an object; `size` is the record's key of the size in bytes."""
    return Entry(path, record[size], record["LastModified"].timestamp(), record["ETag"].strip('"'))


class Bucket:
    """One bucket, through one client that is opened and closed elsewhere."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name
        self._exists_until = float("-inf")

    async def head(self, key: str, path: str) -> Entry | None:
        """The object at `key`, as the entry of `path`, if there is one."""
        try:
            with storage_errors():
                record = await self.client.head_object(Bucket=self.name, Key=key)
        except NotFound:
            await self._check_exists()
            return None
        return entry_from_record(path, record, "ContentLength")

    async def _check_exists(self) -> None:
        """Raise `StorageUnusable` if the bucket is missing: an answer to HEAD does not say of what.

        Asks S3 every few seconds at most.
        """
        now = time.monotonic()
        if now < self._exists_until:
            return
        self._exists_until = now + _EXISTENCE_HOLDS
        try:
            with storage_errors():
                await self.client.head_bucket(Bucket=self.name)
        except NotFound as error:
            self._exists_until = now
            raise StorageUnusable("S3 has no such bucket") from error
        except StorageUnavailable:
            return  # a policy may allow objects alone

    async def exists(self, key: str) -> bool:
        return await self.head(key, "") is not None

    async def first_keys(self, prefix: str, count: int) -> list[str]:
        """The first `count` (at most 1 000) keys that start with `prefix`."""
        with storage_errors():
            answer = await self.client.list_objects_v2(
                Bucket=self.name, Prefix=prefix, MaxKeys=count
            )
        return [item["Key"] for item in answer.get("Contents", ())]

    async def pages(
        self, prefix: str, delimiter: str = "", *, start_after: str = "", most: int = BATCH
    ) -> AsyncIterator[Page]:
        """All objects below `prefix`, sorted by key, at most `most` at a time.

        With `start_after`, those whose keys sort after it; with a delimiter as well, S3 also lists
        the common prefix of `start_after`.
        """
        request: dict[str, Any] = {"Bucket": self.name, "Prefix": prefix}
        if delimiter:
            request["Delimiter"] = delimiter
        if start_after:
            request["StartAfter"] = start_after
        if most < BATCH:
            request["MaxKeys"] = most
        while True:
            with storage_errors():
                answer = await self.client.list_objects_v2(**request)
            prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
            yield Page(answer.get("Contents", []), prefixes)
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    async def put(self, key: str, part: Part | None = None) -> str:
        """Store an object, by default an empty one, in one request; returns its unquoted ETag."""
        with storage_errors():
            answer = await self.client.put_object(Bucket=self.name, Key=key, Body=part or Part())
        return str(answer["ETag"]).strip('"')

    async def delete(self, key: str, *, only: str | None = None) -> None:
        """Delete an object; with `only`, unless it has another ETag by now."""
        condition = {} if only is None else {"IfMatch": f'"{only}"'}
        try:
            with storage_errors():
                await self.client.delete_object(Bucket=self.name, Key=key, **condition)
        except NotFound:
            return
        except StorageUnavailable as error:
            if failed_precondition(error) is None:
                raise

    async def delete_below(self, prefix: str, *, keep: frozenset[str] = frozenset()) -> int | None:
        """Delete all objects below `prefix` except `keep`; returns their size, None for none."""
        size: int | None = None
        async with BoundedTasks(_DELETES_IN_FLIGHT) as tasks:
            async for page in self.pages(prefix):
                objects = [item for item in page.objects if item["Key"] not in keep]
                keys = [item["Key"] for item in objects]
                if objects:
                    size = (size or 0) + sum(item["Size"] for item in objects)
                batch = [key for key in keys if fits_in_xml(key)]
                if batch:
                    await tasks.start(self._delete_batch, batch)
                for key in keys:
                    if not fits_in_xml(key):
                        await tasks.start(self.delete, key)
        return size

    async def _delete_batch(self, keys: list[str]) -> None:
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        with storage_errors():
            answer = await self.client.delete_objects(Bucket=self.name, Delete=request)
        for error in answer.get("Errors", ()):
            code = str(error.get("Code"))
            is_access = code == "AccessDenied"
            raise _refusal(code, str(error.get("Message", "")), is_access=is_access)
