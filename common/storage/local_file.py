"""A file on the local disk, opened for reading."""

import os
import stat as modes
from collections.abc import AsyncGenerator
from typing import Final

from common.storage.errors import NotFound, StorageUnavailable
from common.storage.local_threads import Threads
from common.storage.local_tree import FILE_FLAGS, file_entry, open_directory, tree_of
from common.storage.paths import UserPath
from common.storage.protocol import Entry

_PIECE: Final = 1 << 20


class LocalFile:
    """An `OpenFile` that keeps to the inode it opened, whatever is put in its place meanwhile."""

    entry: Entry

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._fd = -1

    def open(self, root: str, path: UserPath) -> None:
        """Open and describe the file; blocking. `close` is due even when this raises."""
        with open_directory(tree_of(root, path.user), path.parts[:-1]) as parent:
            self._fd = os.open(path.name or ".", FILE_FLAGS, dir_fd=parent)
        status = os.fstat(self._fd)
        if not modes.S_ISREG(status.st_mode):
            raise NotFound(f"there is no file at '{path}'")
        self.entry = file_entry("/".join(path.parts), status)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int | None:
        return self._fd

    async def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        end = offset + length
        while offset < end:
            piece = await self._threads.run(self._read_piece, min(_PIECE, end - offset), offset)
            if not piece:
                raise StorageUnavailable("the file has become shorter than it was")
            offset += len(piece)
            yield piece

    def _read_piece(self, length: int, offset: int) -> bytes:
        # Looked up here: the number may belong to another file once this one is closed.
        return os.pread(self._fd, length, offset)
