"""`S3Storage`: users' trees as keys in one bucket of S3 or of a compatible store."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from functools import partial
from operator import attrgetter
from typing import Any, Final, Self

from common.runtime.tasks import BoundedTasks
from common.storage.budget import BoundedCache, ChunkBudget, FileCount, PartBudget, ReadBudget
from common.storage.errors import NotFound, OutOfSpace, StorageError
from common.storage.paths import PREDEFINED, UserPath
from common.storage.protocol import BATCH, Chunk, Entry, OpenFile, PreparedRequest
from common.storage.resumable import Known, Staged, none_known
from common.storage.s3 import listing
from common.storage.s3.appended import S3Appender, StagedObjects, placed_entry
from common.storage.s3.bucket import Bucket
from common.storage.s3.bundle import S3Bundle
from common.storage.s3.changes import Tree
from common.storage.s3.client import create_client, open_session
from common.storage.s3.file import S3File, read_if_small, stated_sha256
from common.storage.s3.keys import Keys, cut
from common.storage.s3.listing import Directory
from common.storage.s3.part_sizes import LARGEST_FILE
from common.storage.s3.presign import presign_get, presign_post
from common.storage.s3.probe import probe
from common.storage.s3.upload import abort_stale, upload

_HEALTH_TIMEOUT: Final = 5.0
_CONNECTIONS: Final = 100
_DOWNLOADS: Final = 256
"""Responses that are open at a time, each on a connection of its own."""

_READS_AT_ONCE: Final = 8
_SURVEYED_AT_ONCE: Final = 32
"""Inputs and places of one submission that are looked up at a time."""

_PARTS_AT_ONCE: Final = 24
"""Parts of 8 MiB that a process holds: this many large uploads progress at a time."""

_PARTS_PER_USER: Final = 12

_BUNDLED_AT_ONCE: Final = 48
"""Requests for files of bundles that are in flight: others need connections, too."""

_STALE_AFTER: Final = 86_400.0


class S3Storage:
    """Users' trees below the key prefix `root`; an asynchronous context manager.

    A directory is a key prefix. An empty object whose key ends in a slash, its marker, lets an
    empty directory exist. Credentials and endpoints come from the standard `AWS_*` variables.
    `public_endpoint`: where clients reach S3, if it differs from where this process does.
    """

    def __init__(
        self, bucket: str, *, region: str, root: str = "", public_endpoint: str | None = None
    ) -> None:
        self._name = bucket
        self._region = region
        self._public_endpoint = public_endpoint or None
        self._keys = Keys(root)
        self._clients = AsyncExitStack()
        self._reads = ChunkBudget()
        self._responses = ReadBudget(_DOWNLOADS)
        self._parts = PartBudget(_PARTS_AT_ONCE, per_user=_PARTS_PER_USER)
        self._bundled = asyncio.Semaphore(_BUNDLED_AT_ONCE)
        self._users = BoundedCache()

    async def __aenter__(self) -> Self:
        session = open_session()

        async def open_client(connections: int, endpoint: str | None = None) -> Any:
            client = create_client(
                session, region=self._region, endpoint=endpoint, connections=connections
            )
            return await self._clients.enter_async_context(client)

        client = await open_client(_CONNECTIONS)
        self._bucket = Bucket(client, self._name)
        self._tree = Tree(self._bucket, self._keys)
        self._staged = StagedObjects(self._bucket, self._keys.start)
        # a client of their own: slow downloads must not take the connections of other requests
        self._downloads = Bucket(await open_client(_DOWNLOADS), self._name)
        self._signer = client
        if self._public_endpoint:
            self._signer = await open_client(_CONNECTIONS, self._public_endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._clients.aclose()

    async def ensure_user(self, user: str) -> None:
        if user in self._users:
            return
        await self._tree.create_layout(user)
        self._users.add(user)

    async def stat(self, path: UserPath) -> Entry:
        return await self._tree.entry_at(path)

    async def walk(
        self, path: UserPath, *, recursive: bool = True, after: str = "", batch: int = BATCH
    ) -> AsyncGenerator[list[Entry], None]:
        names = [f"{name}/" for name in PREDEFINED] if path.is_root else []
        missing = [name for name in names if name > after]
        start_after = self._keys.tree(path.user) + after if after else ""
        found = listing.walk(
            self._bucket,
            self._directory(path),
            recursive=recursive,
            start_after=cut(start_after),
            batch=batch,
        )
        try:
            async with aclosing(found) as pages:
                async for entries in pages:
                    if after:
                        entries = [entry for entry in entries if entry.path > after]
                    if missing and entries:
                        missing = _complete(entries, missing)
                    if entries:
                        yield entries
        except NotFound:
            if not path.is_permanent:
                raise
        if missing:
            yield [Entry(name) for name in missing]

    def _directory(self, path: UserPath) -> Directory:
        return Directory(self._keys.directory(path), str(path.as_directory))

    async def survey(
        self, inputs: Sequence[UserPath], places: Sequence[UserPath], *, most: int | None = None
    ) -> tuple[list[list[Entry] | None], list[bool]]:
        calls: list[Callable[[], Awaitable[Any]]]
        calls = [partial(self._holds_files, path) for path in places]
        count = FileCount(most)
        calls += [partial(self._files_at, path, count) for path in inputs]
        found = await _results(calls, _SURVEYED_AT_ONCE)
        return found[len(places) :], found[: len(places)]

    async def _files_at(self, path: UserPath, count: FileCount) -> list[Entry] | None:
        if not path.slash and (file := await self._tree.file_at(path)):
            count.add([file], visited=1)
            return [file]
        files = await listing.files_below(self._bucket, self._directory(path), count)
        if files is not None or path.is_permanent:
            return files or []
        file = await self._tree.file_at(path) if path.slash else None
        return None if file is None else [file]

    async def _holds_files(self, path: UserPath) -> bool:
        if not path.is_root and await self._bucket.exists(self._keys.file(path)):
            return True
        async for page in self._bucket.pages(self._keys.directory(path)):
            if any(not item["Key"].endswith("/") for item in page.objects):
                return True
        return False

    async def make_directory(self, path: UserPath) -> None:
        await self._tree.make_directory(path)

    async def write(self, path: UserPath, chunks: AsyncIterator[Chunk]) -> Entry:
        _, old = await asyncio.gather(self._tree.check_place(path), self._tree.file_at(path))
        size, etag = await upload(
            self._bucket, self._keys.file(path), chunks, self._parts, user=path.user
        )
        replaced = (old and old.size) or 0
        return Entry("/".join(path.parts), size, None, etag, replaced, is_distinct=True)

    async def stage(self, path: UserPath, length: int) -> Staged:
        if length > LARGEST_FILE:
            raise OutOfSpace("the file is larger than the storage can hold")
        await self._tree.check_place(path)
        return Staged(path, length, await self._staged.begin(self._keys.file(path)))

    def append(self, staged: Staged, offset: int) -> AbstractAsyncContextManager[S3Appender]:
        key = self._keys.file(staged.path)
        return self._staged.append(key, staged, offset, self._parts)

    async def place(self, staged: Staged) -> Entry:
        path = staged.path
        _, old = await asyncio.gather(self._tree.check_place(path), self._tree.file_at(path))
        etag = await self._staged.place(self._keys.file(path), staged)
        return placed_entry(staged, etag, old)

    async def abandon(self, staged: Staged) -> None:
        await self._staged.abandon(self._keys.file(staged.path), staged)

    @asynccontextmanager
    async def bundle(self, user: str) -> AsyncIterator[S3Bundle]:
        self._keys.tree(user)
        bundle = S3Bundle(self._bucket, self._keys, self._tree, self._parts, self._bundled)
        try:
            yield bundle
        finally:
            await bundle.close()

    @asynccontextmanager
    async def open(self, path: UserPath) -> AsyncIterator[OpenFile]:
        entry = await self._tree.file_at(path)
        if path.slash and await self._bucket.first_keys(self._keys.directory(path), 1):
            entry = None
        if entry is None:
            raise NotFound(f"there is no file at '{path}'")
        with self._reads.transfer():
            yield S3File(
                self._downloads, self._keys.file(path), entry, self._reads, self._responses
            )

    async def stated_sha256(self, path: UserPath, etag: str) -> str | None:
        return await stated_sha256(self._bucket, self._keys.file(path), etag)

    async def read_small(self, paths: Sequence[UserPath]) -> dict[UserPath, bytes]:
        calls = [partial(read_if_small, self._bucket, self._keys.file(path)) for path in paths]
        contents = zip(paths, await _results(calls, _READS_AT_ONCE), strict=True)
        return {path: content for path, content in contents if content is not None}

    async def rename(self, source: UserPath, target: UserPath, *, replace: bool = True) -> Entry:
        return await self._tree.rename(source, target, replace=replace)

    async def delete(self, path: UserPath) -> int:
        return await self._tree.delete(path)

    async def sizes(self, user: str) -> AsyncGenerator[tuple[int, int], None]:
        async for page in self._bucket.pages(self._keys.tree(user)):
            yield len(page.objects), sum(item["Size"] for item in page.objects)

    def uri(self, path: UserPath) -> str:
        return f"s3://{self._name}/{self._keys.start}" + "/".join((path.user, *path.parts))

    async def presign_download(self, path: UserPath) -> PreparedRequest | None:
        return await presign_get(self._signer, self._name, self._keys.file(path))

    async def presign_upload(
        self, directory: UserPath, *, most: int | None = None, sha256: str | None = None
    ) -> PreparedRequest | None:
        await self._tree.check_directory(directory)
        prefix = self._keys.directory(directory)
        return await presign_post(self._signer, self._name, prefix, most=most, sha256=sha256)

    async def sweep_staging(self, known: Known = none_known) -> int:
        return await abort_stale(self._bucket, self._keys.start, known, age=_STALE_AFTER)

    async def free_bytes(self) -> int | None:
        return None

    async def has_tree(self, user: str) -> bool:
        return bool(await self._bucket.first_keys(self._keys.tree(user), 1))

    async def probe(self, *, write: bool) -> None:
        await probe(self._bucket, self._keys.start, write=write)

    async def health(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT):
                await self.probe(write=False)
        except (StorageError, TimeoutError) as error:
            return {"ok": False, "kind": "s3", "reason": str(error) or "S3 does not answer"}
        return {"ok": True, "kind": "s3"}


async def _results(calls: Sequence[Callable[[], Awaitable[Any]]], at_once: int) -> list[Any]:
    """The results of the calls, of which at most `at_once` run at a time, in order."""
    results: list[Any] = [None] * len(calls)

    async def run(position: int) -> None:
        results[position] = await calls[position]()

    async with BoundedTasks(at_once) as tasks:
        for position in range(len(calls)):
            await tasks.start(run, position)
    return results


def _complete(entries: list[Entry], missing: list[str]) -> list[str]:
    """Add the missing directories that belong among these entries; returns the later ones."""
    last, present = entries[-1].path, {entry.path for entry in entries}
    entries += [Entry(name) for name in missing if name < last and name not in present]
    entries.sort(key=attrgetter("path"))
    return [name for name in missing if name > last]
