"""Files on the local disk that appear together: `bundled`, in threads."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from common.runtime.tasks import BoundedTasks
from common.storage.local.bundled import BundledFiles
from common.storage.local.threads import Threads
from common.storage.paths import UserPath
from common.storage.protocol import Entry, SmallFile
from common.storage.resumable import Appender, Staged

_AT_ONCE: Final = 500
"""Files that one call in a thread places."""

_SYNCS_AT_ONCE: Final = 8
"""Calls in threads that write one batch with fsync: file systems make several safe in one go."""


class LocalBundle:
    """A `Bundle`; `append` is the storage's own."""

    def __init__(
        self,
        files: BundledFiles,
        threads: Threads,
        append: Callable[[Staged, int], AbstractAsyncContextManager[Appender]],
        *,
        fsync: bool,
    ) -> None:
        self._files = files
        self._threads = threads
        self._append = append
        self._calls = _SYNCS_AT_ONCE if fsync else 1

    async def add(self, files: Sequence[SmallFile]) -> None:
        step = -(-len(files) // self._calls) or 1
        inodes: dict[int, list[int]] = {}

        async def add(start: int) -> None:
            some = files[start : start + step]
            inodes[start] = await self._threads.run(self._files.add, some)

        async with BoundedTasks(self._calls) as tasks:
            for start in range(0, len(files), step):
                await tasks.start(add, start)
        self._files.paths.extend(file.path for file in files)
        for _, some in sorted(inodes.items()):
            self._files.inodes.extend(some)

    async def write(self, path: UserPath, chunks: AsyncIterator[bytes]) -> None:
        name = await self._threads.run(self._files.begin, path)
        async with self._append(Staged(path, 0, name), 0) as appender:
            async for chunk in chunks:
                await appender.write(chunk)
            await appender.settle()
        self._files.inodes.append(await self._threads.run(self._files.end, path))
        self._files.paths.append(path)

    async def place(self, directories: Sequence[UserPath]) -> AsyncGenerator[list[Entry], None]:
        files, run = self._files, self._threads.run
        files.directories = directories
        await run(files.stage_directories)
        files.is_complete = False
        for first in range(0, len(files.paths), _AT_ONCE):
            yield await run(files.place, first, _AT_ONCE)
        await run(files.place_directories)
        files.is_complete = True
