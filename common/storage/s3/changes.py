"""Change the keys of a bucket as if they were a tree: what is refused, moved, copied, removed."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from common.runtime.tasks import BoundedTasks
from common.storage.errors import (
    DirectoryNotEmpty,
    NotFound,
    PathConflict,
    PredefinedDirectory,
    StorageUnavailable,
    TargetExists,
)
from common.storage.paths import PREDEFINED, UserPath, check_target
from common.storage.protocol import Entry
from common.storage.s3.bucket import Bucket, failed_precondition, storage_errors
from common.storage.s3.keys import Keys
from common.storage.s3.upload import begin_multipart

_COPY_LIMIT: Final = 5 << 30
"""Bytes of the largest object that S3 copies in one request."""

_PART_BYTES: Final = 1 << 30
_PARTS_IN_FLIGHT: Final = 4


class Tree:
    """Changes of the users' trees in one bucket."""

    def __init__(self, bucket: Bucket, keys: Keys) -> None:
        self._bucket = bucket
        self._keys = keys

    async def create_layout(self, user: str) -> None:
        """Create the markers of the predefined directories that are missing."""
        tree = self._keys.tree(user)
        present: set[str] = set()
        async for page in self._bucket.pages(tree, "/"):
            present.update(page.prefixes)
        missing = self._markers(user) - present
        await asyncio.gather(*map(self._bucket.put, missing))

    async def file_at(self, path: UserPath) -> Entry | None:
        """The file at `path`, with or without a trailing slash; None if there is none."""
        if path.is_root:
            return None
        return await self._bucket.head(self._keys.file(path), "/".join(path.parts))

    async def entry_at(self, path: UserPath) -> Entry:
        """The file or directory at `path`; a trailing slash selects the directory."""
        if not path.slash and (file := await self.file_at(path)):
            return file
        if path.is_permanent or await self._bucket.first_keys(self._keys.directory(path), 1):
            return Entry(str(path.as_directory))
        if path.slash and (file := await self.file_at(path)):
            return file
        raise NotFound(f"there is nothing at '{path}'")

    async def make_directory(self, path: UserPath) -> None:
        """Create a directory's marker. Raises `PathConflict` if it or a parent is a file."""
        await self.check_directory(path)
        await self._bucket.put(self._keys.directory(path))

    async def check_directory(self, path: UserPath) -> None:
        """Raise `PathConflict` if `path` or a parent is a file."""
        await self._refuse_files([*_parents(path), path])

    async def check_place(self, path: UserPath) -> None:
        """Raise `PathConflict` if a parent of `path` is a file, or `path` itself a directory."""
        inside, _ = await asyncio.gather(
            self._bucket.first_keys(self._keys.directory(path), 1),
            self._refuse_files(_parents(path)),
        )
        if inside or path.is_permanent:
            raise PathConflict(f"'{'/'.join(path.parts)}' is a directory")

    async def _refuse_files(self, paths: Iterable[UserPath]) -> None:
        candidates = [path for path in paths if not path.is_permanent]
        keys = [self._keys.file(path) for path in candidates]
        taken = await asyncio.gather(*map(self._bucket.exists, keys))
        for path, is_file in zip(candidates, taken, strict=True):
            if is_file:
                raise PathConflict(f"'{'/'.join(path.parts)}' is not a directory")

    async def rename(self, source: UserPath, target: UserPath, *, replace: bool) -> Entry:
        """Move a file or an empty directory; see `Storage.rename` for the order of refusals."""
        if source.is_root:
            raise DirectoryNotEmpty("the root of the tree holds the predefined directories")
        entry = await self.entry_at(source)
        if entry.is_directory:
            await self._check_empty(source)
        check_target(source, target)
        if source.parts == target.parts:
            entry.moved_from = entry.etag
            return entry
        place = self._keys.file(target)
        _, taken = await asyncio.gather(self.check_place(target), self._bucket.head(place, ""))
        if entry.is_directory and taken:
            raise PathConflict(f"'{'/'.join(target.parts)}' is a file")
        if taken and not replace:
            raise TargetExists(f"there is something at '{target}'")
        if entry.is_directory:
            await self._bucket.put(self._keys.directory(target))
            await self._bucket.delete(self._keys.directory(source))
            entry = Entry(str(target.as_directory))
        else:
            origin = self._keys.file(source)
            etag = await copy(self._bucket, origin, entry, place, replace=replace)
            # a version of the source that was uploaded during the copy stays
            await self._bucket.delete(origin, only=entry.etag)
            replaced = (taken and taken.size) or 0
            path = "/".join(target.parts)
            entry = Entry(path, entry.size, None, etag, replaced, moved_from=entry.etag)
        await self._keep(source.parent)
        return entry

    async def _check_empty(self, source: UserPath) -> None:
        marker = self._keys.directory(source)
        if any(key != marker for key in await self._bucket.first_keys(marker, 2)):
            raise DirectoryNotEmpty(f"'{source}' holds something")
        if source.is_predefined:
            raise PredefinedDirectory(f"'{source}' is a predefined directory")

    async def delete(self, path: UserPath) -> int:
        """Remove a file; with a trailing slash, a directory or else a file. Idempotent.

        Returns the size of what was removed.
        """
        removed: int | None = None
        if path.slash or path.is_root:
            kept = self._markers(path.user) if path.is_permanent else frozenset()
            removed = await self._bucket.delete_below(self._keys.directory(path), keep=kept)
            if path.is_permanent:
                await self.create_layout(path.user)
                return removed or 0
        if removed is None and (file := await self.file_at(path)):
            await self._bucket.delete(self._keys.file(path))
            removed = file.size
        if removed is not None:
            await self._keep(path.parent)
        return removed or 0

    def _markers(self, user: str) -> frozenset[str]:
        """Keys of the markers of the predefined directories."""
        return frozenset(f"{self._keys.tree(user)}{name}/" for name in PREDEFINED)

    async def _keep(self, directory: UserPath) -> None:
        """Create the marker of a directory that may have lost its last file: it stays."""
        if directory.is_permanent:
            return
        prefix = self._keys.directory(directory)
        if not await self._bucket.first_keys(prefix, 1):
            await self._bucket.put(prefix)


def _parents(path: UserPath) -> list[UserPath]:
    """The directories above `path`, without the root."""
    return [UserPath(path.user, path.parts[:depth]) for depth in range(1, len(path.parts))]


async def copy(
    bucket: Bucket,
    source: str,
    file: Entry,
    target: str,
    *,
    replace: bool,
    limit: int = _COPY_LIMIT,
) -> str:
    """Copy the object at `source`, whose entry is `file`, to `target`; returns the new ETag.

    Raises `TargetExists` if the target exists and must not be replaced, and `StorageUnavailable`
    if the source is no longer this version. `limit`: bytes that one request copies.
    """
    origin = {
        "CopySource": {"Bucket": bucket.name, "Key": source},
        "CopySourceIfMatch": f'"{file.etag}"',
    }
    condition = {} if replace else {"IfNoneMatch": "*"}
    try:
        if (file.size or 0) > limit:
            return await _copy_parts(bucket, origin, file.size or 0, target, condition, limit)
        with storage_errors():
            answer = await bucket.client.copy_object(
                Bucket=bucket.name, Key=target, **origin, **condition
            )
        return str(answer["CopyObjectResult"]["ETag"]).strip('"')
    except StorageUnavailable as error:
        failed = failed_precondition(error)
        if failed is None:
            raise
        if "copy-source" in failed.lower():
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
    async with begin_multipart(bucket, target) as multipart:
        async with BoundedTasks(_PARTS_IN_FLIGHT) as tasks:
            for number, start in enumerate(range(0, size, step), 1):
                end = min(start + step, size) - 1
                part = {**origin, "CopySourceRange": f"bytes={start}-{end}"}
                await tasks.start(multipart.copy, number, part)
        return await multipart.complete(**condition)
