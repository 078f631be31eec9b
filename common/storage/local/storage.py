"""`LocalStorage`: users' trees on a local or mounted file system."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, Final, Self

from common.storage.budget import BoundedCache, ChunkBudget
from common.storage.errors import StorageError
from common.storage.local import appended, changes, staging, tree
from common.storage.local import rename as renaming
from common.storage.local import survey as surveying
from common.storage.local.appended import AppendedFile, LocalAppender
from common.storage.local.bundle import LocalBundle
from common.storage.local.bundled import BundledFiles
from common.storage.local.file import LocalFile, read_small
from common.storage.local.probe import probe, root_error
from common.storage.local.sizes import sizes_of
from common.storage.local.space import FreeSpace
from common.storage.local.threads import Threads, outlast
from common.storage.local.turns import Turns
from common.storage.local.upload import StagedFile
from common.storage.paths import UserPath
from common.storage.protocol import BATCH, SMALL_FILE, Chunk, Entry, OpenFile, PreparedRequest
from common.storage.resumable import Known, Staged, none_known

_DELETIONS: Final = 1_000
"""Files that one call in a thread deletes."""

_DISK_TIMEOUT: Final = 5.0

_STALE_AFTER: Final = 86_400.0
"""Seconds after which a staging file that is not written to belongs to no running upload."""

_THREADS: Final = 16
"""Threads per kind of call. On a slow network file system all of them mostly wait."""


class LocalStorage:
    """Users' trees below `root`, which is spelled as workers spell it.

    An upload is written to a staging file and renamed to its place, so that a killed process leaves
    no partial file. With `fsync`, `write` returns only after the file and its directory are on the
    disk; without, the system writes them within seconds, and a power failure may lose them.
    `min_free_bytes`: space that uploads leave on the file system.
    """

    def __init__(self, root: str, *, fsync: bool = False, min_free_bytes: int = 0) -> None:
        if not root:
            raise ValueError("the root of a local storage must not be empty")
        self._root = root.rstrip("/")
        self._fsync = fsync
        self._space = FreeSpace(min_free_bytes)
        self._quick = Threads(_THREADS)  # calls that take microseconds on a disk
        self._bulk = Threads(_THREADS)  # read and write files
        self._walks = Turns(Threads(_THREADS))  # read directories
        self._reads, self._writes = ChunkBudget(), ChunkBudget()
        self._users = BoundedCache()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for running calls and end the threads; the storage cannot be used again."""
        for threads in (self._quick, self._bulk, self._walks):
            await threads.close()

    def _tree(self, path: UserPath) -> str:
        return tree.tree_of(self._root, path.user)

    async def ensure_user(self, user: str) -> None:
        if user in self._users:
            return
        await self._quick.run(tree.create_layout, tree.tree_of(self._root, user))
        self._users.add(user)

    async def stat(self, path: UserPath) -> Entry:
        return await self._quick.run(tree.entry_at, self._tree(path), path)

    async def walk(
        self, path: UserPath, *, recursive: bool = True, after: str = "", batch: int = BATCH
    ) -> AsyncGenerator[list[Entry], None]:
        found = tree.walk(self._tree(path), path, recursive=recursive, after=after, batch=batch)
        try:
            is_last = False
            while not is_last:
                entries, is_last = await self._walks.run(path.user, next, found)
                if entries:
                    yield entries
        finally:
            found.close()

    async def survey(
        self, inputs: Sequence[UserPath], places: Sequence[UserPath], *, most: int | None = None
    ) -> tuple[list[list[Entry] | None], list[bool]]:
        files: dict[int, list[Entry]] = {}
        held: list[bool] | None = None
        user = next((path.user for path in (*inputs, *places)), "")
        with closing(surveying.survey(self._root, inputs, places, most)) as batches:
            while held is None:
                batch, held = await self._walks.run(user, next, batches)
                for position, some in batch:
                    files.setdefault(position, []).extend(some)
        return [files.get(position) for position in range(len(inputs))], held

    async def make_directory(self, path: UserPath) -> None:
        await self._quick.run(changes.make_directory, self._root, path)

    async def write(self, path: UserPath, chunks: AsyncIterator[Chunk]) -> Entry:
        with self._writes.transfer():
            return await self._write(path, chunks)

    async def _write(self, path: UserPath, chunks: AsyncIterator[Chunk]) -> Entry:
        staged = StagedFile(self._root, path, fsync=self._fsync, space=self._space)
        job: Future[Any] | None = None
        is_small = True
        try:
            gathered = bytearray()
            async for chunk in chunks:
                if is_small and len(gathered) + len(chunk) > SMALL_FILE:
                    is_small = False
                    await self._quick.run(changes.check_place, self._root, path)
                full, size = chunk, self._writes.size
                if gathered or len(chunk) < size:  # a large one is not copied
                    gathered += chunk
                    full = gathered
                if len(full) >= size:
                    # one chunk is written while the next is gathered
                    if job is not None:
                        await self._bulk.result(job)
                    job = self._bulk.submit(staged.write, full)
                    gathered = bytearray()
            if job is not None:
                await self._bulk.result(job)
            threads = self._quick if is_small and not self._fsync else self._bulk
            last = job = threads.submit(staged.finish, gathered)
            return await threads.result(last)
        except BaseException:
            try:
                if job is not None:
                    await outlast(job)
            finally:
                if staged.exists:
                    await outlast(self._bulk.submit(staged.abandon))
            raise

    async def stage(self, path: UserPath, length: int) -> Staged:
        await self._quick.run(changes.check_place, self._root, path)
        staged = Staged(path, length, appended.staged_name())
        if not length:
            await self._quick.run(appended.create_empty, self._root, staged.name)
        return staged

    @asynccontextmanager
    async def append(self, staged: Staged, offset: int) -> AsyncIterator[LocalAppender]:
        file = AppendedFile(self._root, staged, offset, fsync=self._fsync, space=self._space)
        appender = LocalAppender(self._bulk, file)
        try:
            yield appender
        finally:
            if appender.job is not None:
                await outlast(appender.job)
            file.close()

    async def place(self, staged: Staged) -> Entry:
        place = partial(appended.place, fsync=self._fsync)
        return await self._bulk.run(place, self._root, staged)

    async def abandon(self, staged: Staged) -> None:
        await self._discard([staged.name])

    @asynccontextmanager
    async def bundle(self, user: str) -> AsyncIterator[LocalBundle]:
        files = BundledFiles(self._root, user, fsync=self._fsync, space=self._space)
        try:
            await self._quick.run(files.open)
            yield LocalBundle(files, self._bulk, self.append, fsync=self._fsync)
        finally:
            await outlast(self._bulk.submit(files.close))

    @asynccontextmanager
    async def open(self, path: UserPath) -> AsyncIterator[OpenFile]:
        file = LocalFile(self._bulk, self._reads)
        with self._reads.transfer():
            try:
                await self._quick.run(file.open, self._root, path)
                yield file
            finally:
                file.close()

    async def stated_sha256(self, path: UserPath, etag: str) -> str | None:  # noqa: ARG002
        return None

    async def read_small(self, paths: Sequence[UserPath]) -> dict[UserPath, bytes]:
        return await self._bulk.run(read_small, self._root, paths) if paths else {}

    async def rename(self, source: UserPath, target: UserPath, *, replace: bool = True) -> Entry:
        return await self._quick.run(renaming.rename, self._root, source, target, replace)

    async def delete(self, path: UserPath) -> int:
        detached, size = await self._quick.run(changes.detach, self._root, path)
        return size + await self._discard(detached)

    async def sizes(self, user: str) -> AsyncGenerator[tuple[int, int], None]:
        with closing(sizes_of(tree.tree_of(self._root, user))) as batches:
            while (batch := await self._walks.run(user, next, batches, None)) is not None:
                yield batch

    async def sweep_staging(self, known: Known = none_known) -> int:
        leftovers = await self._quick.run(staging.stale, self._root, _STALE_AFTER)
        resumable = [name for name in leftovers if name.startswith(staging.RESUMABLE)]
        kept = await known(resumable) if resumable else set()
        leftovers = [name for name in leftovers if name not in kept]
        count = len(leftovers)
        await self._discard(leftovers)
        return count

    async def _discard(self, names: list[str]) -> int:
        size = 0
        while names:
            size += await self._bulk.run(staging.discard, self._root, names, _DELETIONS)
        return size

    def uri(self, path: UserPath) -> str:
        return "/".join((self._root, path.user, *path.parts))

    async def presign_download(self, path: UserPath) -> PreparedRequest | None:  # noqa: ARG002
        return None

    async def presign_upload(
        self,
        directory: UserPath,
        *,
        most: int | None = None,  # noqa: ARG002
        sha256: str | None = None,  # noqa: ARG002
    ) -> PreparedRequest | None:
        await self._quick.run(changes.check_directory, self._root, directory)
        return None

    async def free_bytes(self) -> int | None:
        free: int | None = (await self.health()).get("free_bytes")
        return free

    async def has_tree(self, user: str) -> bool:
        return await self._quick.run(os.path.isdir, tree.tree_of(self._root, user))

    async def probe(self, *, write: bool) -> None:  # noqa: ARG002 - writing costs nothing here
        await self._quick.result(self._quick.submit(probe, self._root or "/"))

    async def health(self) -> dict[str, Any]:
        try:
            # not `run`, which would outlast the time-out
            async with asyncio.timeout(_DISK_TIMEOUT):
                job = self._quick.submit(_examine, self._root or "/")
                is_writable, free = await self._quick.result(job)
        except (StorageError, TimeoutError) as error:
            reason = str(error) or "the disk does not answer"
            return {"ok": False, "kind": "local", "reason": reason}
        return {"ok": is_writable, "kind": "local", "free_bytes": free}


def _examine(root: str) -> tuple[bool, int]:
    """Whether files can be created below `root`, and the free bytes of its file system."""
    try:
        os.makedirs(root, exist_ok=True)
        facts = os.statvfs(root)
    except OSError as error:
        raise root_error(error) from error
    return os.access(root, os.W_OK | os.X_OK), facts.f_bavail * facts.f_frsize
