"""An upload on the local disk: a staged file that is moved to its place when complete. Blocking."""

import os
from contextlib import suppress
from typing import Final

from common.storage.local.changes import put_in_place
from common.storage.local.space import FreeSpace
from common.storage.local.staging import new_name, open_staging, stamp
from common.storage.local.tree import entry_from_stat
from common.storage.paths import UserPath
from common.storage.protocol import Chunk, Entry

_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StagedFile:
    """An unfinished file; ends with `finish` or `abandon`. For one thread at a time."""

    def __init__(self, root: str, path: UserPath, *, fsync: bool, space: FreeSpace) -> None:
        self._space = space
        self._root = root
        self._path = path
        self._fsync = fsync
        self._name = new_name()
        self._fd = -1
        self.exists = False

    def write(self, data: Chunk) -> None:
        """Append all of `data`; the first call creates the staged file. Raises `OutOfSpace`."""
        if not self.exists:
            with open_staging(self._root) as staging:
                self._create(staging)
        self._append(data)

    def _create(self, staging: int) -> None:
        self._fd = os.open(self._name, _CREATE_FLAGS, 0o666, dir_fd=staging)
        self.exists = True

    def _append(self, data: Chunk) -> None:
        with self._space.reserved(self._fd, len(data)), memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.write(self._fd, view[done:])

    def finish(self, rest: bytearray) -> Entry:
        """Append `rest` and move the file to its place; a failure leaves nothing behind.

        Raises `PathConflict` and `OutOfSpace`.
        """
        try:
            with open_staging(self._root) as staging:
                if not self.exists:
                    self._create(staging)
                self._append(rest)
                status, is_distinct = stamp(self._fd)
                if self._fsync:
                    os.fsync(self._fd)
                self._close()  # only here do network file systems report a full disk
                replaced = put_in_place(
                    self._root, staging, self._name, self._path, fsync=self._fsync
                )
        except BaseException:
            self.abandon()
            raise
        self.exists = False
        entry = entry_from_stat("/".join(self._path.parts), status)
        entry.replaced, entry.is_distinct = replaced, is_distinct
        return entry

    def abandon(self) -> None:
        """Remove the staged file, if there is one; idempotent."""
        with suppress(OSError):
            self._close()
        if self.exists:
            self.exists = False
            with suppress(OSError), open_staging(self._root) as staging:
                os.unlink(self._name, dir_fd=staging)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
