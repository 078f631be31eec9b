"""The S3 operations that a storage needs, on one bucket, with its errors translated."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from common.storage.bounded import BoundedTasks
from common.storage.errors import NotFound, StorageUnavailable
from common.storage.protocol import BATCH, Entry
from common.storage.s3.errors import status_of, translated
from common.storage.s3.keys import fits_in_xml
from common.storage.s3.part import Part

_DELETES_IN_FLIGHT: Final = 4


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: objects as S3 describes them, and the prefixes between delimiters."""

    objects: list[dict[str, Any]]
    prefixes: list[str]


def describe(path: str, facts: dict[str, Any], size: str) -> Entry:
    """An entry from S3's `facts`, whose member `size` holds the number of bytes."""
    return Entry(path, facts[size], facts["LastModified"].timestamp(), facts["ETag"].strip('"'))


class Bucket:
    """One bucket, through one client that is opened and closed elsewhere."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    async def head(self, key: str, path: str) -> Entry | None:
        """The object at `key`, described as `path`, if there is one."""
        try:
            with translated():
                facts = await self.client.head_object(Bucket=self.name, Key=key)
        except NotFound:
            return None
        return describe(path, facts, "ContentLength")

    async def exists(self, key: str) -> bool:
        return await self.head(key, "") is not None

    async def first_keys(self, prefix: str, count: int) -> list[str]:
        """Up to `count` (at most 1 000) keys that start with `prefix`, in order."""
        with translated():
            answer = await self.client.list_objects_v2(
                Bucket=self.name, Prefix=prefix, MaxKeys=count
            )
        return [item["Key"] for item in answer.get("Contents", ())]

    async def pages(
        self, prefix: str, delimiter: str = "", *, start_after: str = "", most: int = BATCH
    ) -> AsyncIterator[Page]:
        """All objects below `prefix`, in the order of their keys, at most `most` at a time.

        With `start_after` those whose keys sort after it; S3 begins with the prefix in which it
        lies, if there is a delimiter.
        """
        request: dict[str, Any] = {"Bucket": self.name, "Prefix": prefix}
        if delimiter:
            request["Delimiter"] = delimiter
        if start_after:
            request["StartAfter"] = start_after
        if most < BATCH:
            request["MaxKeys"] = most
        while True:
            with translated():
                answer = await self.client.list_objects_v2(**request)
            prefixes = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
            yield Page(answer.get("Contents", []), prefixes)
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    async def put(self, key: str, part: Part | None = None) -> str:
        """Store an object, by default an empty one, in one request; returns its bare ETag."""
        with translated():
            answer = await self.client.put_object(Bucket=self.name, Key=key, Body=part or Part())
        return str(answer["ETag"]).strip('"')

    async def delete(self, key: str, *, only: str | None = None) -> None:
        """Delete an object; if `only` is given and it has another ETag by now, leave it."""
        condition = {} if only is None else {"IfMatch": f'"{only}"'}
        try:
            with translated():
                await self.client.delete_object(Bucket=self.name, Key=key, **condition)
        except NotFound:
            return
        except StorageUnavailable as error:
            cause = error.__cause__
            if not (isinstance(cause, ClientError) and status_of(cause) == 412):
                raise

    async def delete_below(self, prefix: str, *, keep: frozenset[str] = frozenset()) -> bool:
        """Delete all objects below `prefix` but those to keep; returns whether there were any."""
        some = False
        async with BoundedTasks(_DELETES_IN_FLIGHT) as tasks:
            async for page in self.pages(prefix):
                keys = [item["Key"] for item in page.objects if item["Key"] not in keep]
                some = some or bool(keys)
                batch = [key for key in keys if fits_in_xml(key)]
                if batch:
                    await tasks.start(self._delete_batch, batch)
                for key in keys:
                    if not fits_in_xml(key):
                        await tasks.start(self.delete, key)
        return some

    async def _delete_batch(self, keys: list[str]) -> None:
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        with translated():
            answer = await self.client.delete_objects(Bucket=self.name, Delete=request)
        for error in answer.get("Errors", ()):
            raise StorageUnavailable(f"S3 refuses to delete ({error.get('Code')})")
