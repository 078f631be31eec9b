"""Read files on the local disk."""

import os
import stat as modes
from collections.abc import AsyncGenerator, Sequence
from itertools import groupby

from common.storage.budget import ChunkBudget
from common.storage.errors import NotFound, StorageUnavailable
from common.storage.local.threads import Threads
from common.storage.local.tree import (
    FILE_FLAGS,
    entry_from_stat,
    ignore_absent,
    open_directory,
    tree_of,
)
from common.storage.paths import UserPath
from common.storage.protocol import SMALL_FILE, Blocks, Entry


class LocalFile:
    """An `OpenFile`: the inode that was opened, even after another file replaces it."""

    entry: Entry

    def __init__(self, threads: Threads, budget: ChunkBudget) -> None:
        self._threads = threads
        self._budget = budget
        self._fd = -1
        self._content = b""

    def open(self, root: str, path: UserPath) -> None:
        """Open the file, set `entry`, and read the content of a small file; blocking.

        Call `close` even if this raises.
        """
        with open_directory(tree_of(root, path.user), path.parts[:-1]) as parent:
            self._fd = os.open(path.name or ".", FILE_FLAGS, dir_fd=parent)
        status = os.fstat(self._fd)
        if not modes.S_ISREG(status.st_mode):
            raise NotFound(f"there is no file at '{path}'")
        self.entry = entry_from_stat("/".join(path.parts), status)
        if status.st_size <= SMALL_FILE:
            self._content = os.pread(self._fd, status.st_size, 0)

    def close(self) -> None:
        self._content = b""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        end = offset + length
        if length and end <= len(self._content):
            yield self._content[offset:end]
            return
        while offset < end:
            size = min(self._budget.size, end - offset)
            chunk = await self._threads.run(self._read_chunk, size, offset)
            if not chunk:
                raise StorageUnavailable("the file has become shorter than it was")
            offset += len(chunk)
            yield chunk

    async def read_blocks(self, blocks: Blocks) -> AsyncGenerator[bytearray, None]:
        offset, end = 0, self.entry.size or 0
        while offset < end:
            length = min(blocks.most(self._budget.size), end - offset)
            yield await self._threads.run(self._read_blocks, length, offset, blocks)
            offset += length

    def _read_blocks(self, length: int, offset: int, blocks: Blocks) -> bytearray:
        buffer, places = blocks.places(length)
        if os.preadv(self._fd, places, offset) != length:
            raise StorageUnavailable("the file has become shorter than it was")
        return buffer

    def _read_chunk(self, length: int, offset: int) -> bytes:
        # read in the thread: once closed, the old number may belong to another file
        return os.pread(self._fd, length, offset)


def read_small(root: str, paths: Sequence[UserPath]) -> dict[UserPath, bytes]:
    """The content of those of `paths` that are small files; blocking."""
    found: dict[UserPath, bytes] = {}
    for (user, parts), siblings in groupby(paths, lambda path: (path.user, path.parts[:-1])):
        with ignore_absent, open_directory(tree_of(root, user), parts) as parent:
            for path in siblings:
                content = _read_if_small(parent, path.name)
                if content is not None:
                    found[path] = content
    return found


def _read_if_small(parent: int, name: str) -> bytes | None:
    with ignore_absent:
        fd = os.open(name, FILE_FLAGS, dir_fd=parent)
        try:
            status = os.fstat(fd)
            if modes.S_ISREG(status.st_mode) and status.st_size <= SMALL_FILE:
                content = os.read(fd, status.st_size)
                return content if len(content) == status.st_size else None
        finally:
            os.close(fd)
    return None
