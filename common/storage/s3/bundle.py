"""Objects that appear together: multipart uploads, all completed when the last one has arrived.

S3 shows nothing of a multipart upload before it is completed, however small it is. Those of killed
processes are left to `upload.abort_stale`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from common.runtime.tasks import BoundedTasks
from common.storage.budget import PartBudget
from common.storage.errors import PathConflict, StorageError
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, Entry, SmallFile
from common.storage.s3.bucket import Bucket, storage_errors
from common.storage.s3.changes import Tree
from common.storage.s3.keys import Keys
from common.storage.s3.part import Part
from common.storage.s3.upload import Multipart, upload_parts

T = TypeVar("T")

_AT_ONCE: Final = 24
"""Requests of one bundle that are in flight."""

_closing: set[asyncio.Future[None]] = set()
"""Keeps these tasks alive: asyncio holds only weak references to them."""


@dataclass(slots=True)
class _Staged:
    """One object: `replaced` is the size of what it replaces, None if there is nothing.

    `upload_id` is None for an empty object, `etag` until the object is placed.
    """

    path: UserPath
    size: int
    replaced: int | None = None
    upload_id: str | None = None
    parts: tuple[str, ...] = ()
    etag: str | None = None


class S3Bundle:
    """A `Bundle`; `close` ends it. `turns` is shared by all bundles of the process."""

    def __init__(
        self, bucket: Bucket, keys: Keys, tree: Tree, budget: PartBudget, turns: asyncio.Semaphore
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._tree = tree
        self._budget = budget
        self._turns = turns
        self._staged: list[_Staged] = []
        self._are_new: dict[tuple[str, ...], bool] = {}
        self._made: list[UserPath] = []
        self._is_complete = False

    async def add(self, files: Sequence[SmallFile]) -> None:
        begun = [(_Staged(file.path, len(file.content)), file.content) for file in files]
        self._staged += [staged for staged, _ in begun]
        for file in files:
            await self._is_new(file.path.parent)
        await self._for_each(self._add, begun)

    async def _add(self, item: tuple[_Staged, bytes]) -> None:
        staged, content = item
        if not await self._is_new(staged.path.parent):
            await self._find_replaced(staged)
        if content:
            part = Part()
            part.append(content)
            multipart = await self._begin(staged)
            await multipart.upload(1, part)
            staged.parts = multipart.etags

    async def write(self, path: UserPath, chunks: AsyncIterator[bytes]) -> None:
        staged = _Staged(path, 0)
        self._staged.append(staged)
        if not await self._is_new(path.parent):
            await self._find_replaced(staged)
        multipart = await self._begin(staged)
        staged.size = await upload_parts(multipart, chunks, self._budget, user=path.user)
        staged.parts = multipart.etags

    async def _begin(self, staged: _Staged) -> Multipart:
        with storage_errors():
            answer = await self._bucket.client.create_multipart_upload(
                Bucket=self._bucket.name, Key=self._keys.file(staged.path)
            )
        staged.upload_id = str(answer["UploadId"])
        return self._multipart(staged)

    def _multipart(self, staged: _Staged) -> Multipart:
        key, upload_id = self._keys.file(staged.path), staged.upload_id or ""
        return Multipart(self._bucket, key, upload_id, staged.parts)

    # -- what is there already --------------------------------------------------------------------
    async def _is_new(self, directory: UserPath) -> bool:
        """Whether nothing is in the directory. Raises `PathConflict` if it is a file.

        Where that is so, nothing below it needs a look.
        """
        if directory.is_permanent:
            return False
        is_new = self._are_new.get(directory.parts)
        if is_new is None:
            is_new = await self._is_new(directory.parent) or await self._holds_nothing(directory)
            self._are_new[directory.parts] = is_new
        return is_new

    async def _holds_nothing(self, directory: UserPath) -> bool:
        first = self._bucket.first_keys(self._keys.directory(directory), 1)
        inside, file = await asyncio.gather(first, self._tree.file_at(directory))
        if file is not None:
            raise PathConflict(f"'{'/'.join(directory.parts)}' is not a directory")
        return not inside

    async def _find_replaced(self, staged: _Staged) -> None:
        """Raises `PathConflict` if a directory is at the object's place."""
        path = staged.path
        first = self._bucket.first_keys(self._keys.directory(path), 1)
        inside, old = await asyncio.gather(first, self._tree.file_at(path))
        if inside:
            raise PathConflict(f"'{'/'.join(path.parts)}' is a directory")
        staged.replaced = None if old is None else old.size or 0

    async def _for_each(self, call: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
        """Call for the items; after an error for no further one.

        The error is raised when all calls have ended: S3 may have done what one that is cancelled
        asked for, which could not be taken back.
        """
        errors: list[Exception] = []

        async def run(item: T) -> None:
            async with self._turns:
                try:
                    await call(item)
                except Exception as error:  # noqa: BLE001 - raised below
                    errors.append(error)

        async with BoundedTasks(_AT_ONCE) as tasks:
            for item in items:
                if errors:
                    break
                await tasks.start(run, item)
        if errors:
            raise errors[0]

    # -- the end ----------------------------------------------------------------------------------
    async def place(self, directories: Sequence[UserPath]) -> AsyncGenerator[list[Entry], None]:
        """What replaces nothing comes first: it can be taken back if S3 fails in between."""
        await self._for_each(self._place, (one for one in self._staged if one.replaced is None))
        new = [directory for directory in directories if await self._is_new(directory)]
        await self._for_each(self._make_directory, new)
        await self._for_each(self._place, (one for one in self._staged if one.replaced is not None))
        self._is_complete = True
        for start in range(0, len(self._staged), BATCH):
            yield [_entry(staged) for staged in self._staged[start : start + BATCH]]

    async def _place(self, staged: _Staged) -> None:
        if staged.upload_id is None:
            staged.etag = await self._bucket.put(self._keys.file(staged.path))
        else:
            staged.etag = await self._multipart(staged).complete()

    async def _make_directory(self, path: UserPath) -> None:
        self._made.append(path)
        await self._bucket.put(self._keys.directory(path))

    async def close(self) -> None:
        """Take back what is not complete; goes on by itself if this is cancelled."""
        if self._is_complete:
            return
        closing = asyncio.ensure_future(self._take_back())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        await asyncio.shield(closing)

    async def _take_back(self) -> None:
        async with BoundedTasks(_AT_ONCE) as tasks:
            for staged in self._staged:
                if staged.etag is None and staged.upload_id is not None:
                    await tasks.start(self._multipart(staged).try_to_abort)
                elif staged.etag is not None and staged.replaced is None:
                    await tasks.start(self._delete, self._keys.file(staged.path), staged.etag)
            for path in self._made:
                await tasks.start(self._delete, self._keys.directory(path))

    async def _delete(self, key: str, etag: str | None = None) -> None:
        with suppress(StorageError):
            await self._bucket.delete(key, only=etag)


def _entry(staged: _Staged) -> Entry:
    path = "/".join(staged.path.parts)
    replaced = staged.replaced or 0
    return Entry(path, staged.size, None, staged.etag, replaced, is_distinct=True)
