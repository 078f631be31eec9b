"""Files on the local disk that appear together: staged in a directory, moved when all are there.

What a file replaces is linked into that directory until the last one is at its place, so that a
failure in between can be undone. Blocking, but for `LocalBundle`.
"""

import os
import stat as modes
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from itertools import groupby
from typing import Final

from common.runtime.tasks import BoundedTasks
from common.storage.errors import StorageUnavailable
from common.storage.local.changes import check_place, descend_making, directory_there, unmake
from common.storage.local.rename import NO_LINKS
from common.storage.local.space import FreeSpace
from common.storage.local.staging import BUNDLE, discard, new_name, open_staging
from common.storage.local.threads import Threads
from common.storage.local.tree import (
    closing_descriptor,
    descend,
    entry_from_stat,
    open_directory,
    size_of,
    tree_of,
)
from common.storage.paths import UserPath
from common.storage.protocol import Entry, SmallFile
from common.storage.resumable import Appender, Staged

_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACED_AT_ONCE: Final = 500
"""Files that one call in a thread places."""

_SYNCS_AT_ONCE: Final = 8
"""Calls in threads that write one batch with fsync: file systems make several safe in one go."""


class BundledFiles:
    """The staged files of one bundle; the name of each is its number."""

    def __init__(self, root: str, user: str, *, fsync: bool, space: FreeSpace) -> None:
        self._root = root
        self._tree = tree_of(root, user)
        self._fsync = fsync
        self._space = space
        self._fd = -1
        self._placed: list[tuple[UserPath, int]] = []  # by number, with the inode
        self._made: list[tuple[UserPath, list[int]]] = []
        self.name = f"{BUNDLE}{new_name()}"
        self.is_complete = False

    def open(self) -> None:
        with open_staging(self._root) as staging:
            os.mkdir(self.name, dir_fd=staging)
            self._fd = descend(staging, (self.name,))

    def add(self, first: int, files: Sequence[SmallFile]) -> None:
        """Stage files under this number and the following ones. Raises `OutOfSpace`."""
        for number, file in enumerate(files, first):
            fd = os.open(str(number), _CREATE_FLAGS, 0o666, dir_fd=self._fd)
            with closing_descriptor(fd), self._space.reserved(fd, len(file.content)):
                rest = memoryview(file.content)
                while rest:
                    rest = rest[os.write(fd, rest) :]
                if self._fsync:
                    os.fsync(fd)

    def check_place(self, path: UserPath) -> None:
        """Raise `PathConflict` if no file can be placed at `path` as things are."""
        check_place(self._root, path)

    def place(self, paths: Sequence[UserPath]) -> list[Entry]:
        """Move the next files to `paths`. Raises `PathConflict`."""
        entries: list[Entry] = []
        for _, siblings in groupby(paths, lambda path: path.parts[:-1]):
            some = list(siblings)
            with closing_descriptor(self._make(some[0].parent)) as fd:
                entries.extend(self._place(fd, path) for path in some)
                if self._fsync:
                    os.fsync(fd)
        return entries

    def make_directories(self, paths: Sequence[UserPath]) -> None:
        """Create directories where missing. Raises `PathConflict`."""
        for path in paths:
            os.close(self._make(path))

    def _make(self, path: UserPath) -> int:
        made: list[int] = []
        self._made.append((path, made))
        try:
            return descend_making(self._tree, path, made)
        finally:
            if not made:
                self._made.pop()

    def _place(self, parent: int, path: UserPath) -> Entry:
        number = len(self._placed)
        try:
            status = os.stat(str(number), dir_fd=self._fd, follow_symlinks=False)
            replaced = self._keep_replaced(parent, path.name, number)
            self._placed.append((path, status.st_ino))
            os.replace(str(number), path.name, src_dir_fd=self._fd, dst_dir_fd=parent)
        except IsADirectoryError:
            raise directory_there(path) from None
        except FileNotFoundError as error:
            raise StorageUnavailable("a directory was removed meanwhile") from error
        entry = entry_from_stat("/".join(path.parts), status)
        entry.replaced = replaced
        return entry

    def _keep_replaced(self, parent: int, name: str, number: int) -> int:
        """Keep the file that is to be replaced, if there is one; returns its size."""
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        if modes.S_ISDIR(status.st_mode):
            raise IsADirectoryError
        kept, target = _kept(number), self._fd
        try:
            os.link(name, kept, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.rename(name, kept, src_dir_fd=parent, dst_dir_fd=target)
        return size_of(status)

    def close(self) -> None:
        """Remove what is staged, and unless the bundle is complete all that was placed and made."""
        if self._fd < 0:
            return
        if not self.is_complete:
            for number in reversed(range(len(self._placed))):
                with suppress(OSError):
                    self._take_back(number)
            for path, made in reversed(self._made):
                unmake(self._tree, path, made)
        os.close(self._fd)
        names = [self.name]
        while names:
            discard(self._root, names, _PLACED_AT_ONCE)

    def _take_back(self, number: int) -> None:
        """Put what was replaced back, or remove the file, unless it has been replaced since."""
        path, inode = self._placed[number]
        with open_directory(self._tree, path.parts[:-1]) as parent:
            with suppress(FileNotFoundError):
                status = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
                if status.st_ino != inode:
                    return
            try:
                os.replace(_kept(number), path.name, src_dir_fd=self._fd, dst_dir_fd=parent)
            except FileNotFoundError:
                os.unlink(path.name, dir_fd=parent)


def _kept(number: int) -> str:
    """The name under which the file is kept that file `number` replaces."""
    return f"{number}-replaced"


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
        self._paths: list[UserPath] = []

    async def add(self, files: Sequence[SmallFile]) -> None:
        number = len(self._paths)
        self._paths.extend(file.path for file in files)
        step = -(-len(files) // self._calls) or 1
        async with BoundedTasks(self._calls) as tasks:
            for start in range(0, len(files), step):
                some = files[start : start + step]
                await tasks.start(self._threads.run, self._files.add, number + start, some)

    async def write(self, path: UserPath, chunks: AsyncIterator[bytes]) -> None:
        await self._threads.run(self._files.check_place, path)
        name = f"{self._files.name}/{len(self._paths)}"
        self._paths.append(path)
        async with self._append(Staged(path, 0, name), 0) as appender:
            async for chunk in chunks:
                await appender.write(chunk)
            await appender.settle()

    async def place(self, directories: Sequence[UserPath]) -> AsyncGenerator[list[Entry], None]:
        for start in range(0, len(self._paths), _PLACED_AT_ONCE):
            some = self._paths[start : start + _PLACED_AT_ONCE]
            yield await self._threads.run(self._files.place, some)
        for start in range(0, len(directories), _PLACED_AT_ONCE):
            few = directories[start : start + _PLACED_AT_ONCE]
            await self._threads.run(self._files.make_directories, few)
        self._files.is_complete = True
