"""A staged file on the local disk that is appended to by one process after another.

What lies behind the offset at which one goes on is cut off: nobody has confirmed it. A lock on the
file, which the system releases with the process, keeps a second writer out. Blocking, but for
`LocalAppender`.
"""

import fcntl
import os
from concurrent.futures import Future
from typing import Any, Final

from common.storage.errors import StagedBytesLost, StagedFileBusy
from common.storage.local.changes import put_in_place
from common.storage.local.space import FreeSpace
from common.storage.local.staging import RESUMABLE, new_name, open_staging, stamp
from common.storage.local.threads import Threads
from common.storage.local.tree import entry_from_stat
from common.storage.protocol import Entry
from common.storage.resumable import STEP, Staged

_FLAGS: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def staged_name() -> str:
    """A new name for a file that arrives in portions."""
    return f"{RESUMABLE}{new_name()}"


class AppendedFile:
    """A staged file, opened by the first call; `safe` is behind what is on the disk by the `fsync`
    policy."""

    def __init__(
        self, root: str, staged: Staged, offset: int, *, fsync: bool, space: FreeSpace
    ) -> None:
        self._root = root
        self._name = staged.name
        self._fsync = fsync
        self._space = space
        self._fd = -1
        self._end = self.safe = offset

    @property
    def is_settled(self) -> bool:
        return self._fd >= 0 and self.safe == self._end

    def append(self, data: bytes | bytearray) -> None:
        """Append all of `data`. Raises as `settle` does."""
        self._open()
        with self._space.reserved(self._fd, len(data)), memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.write(self._fd, view[done:])
        self._end += len(data)
        if not self._fsync or self._end - self.safe >= STEP:
            self.settle()

    def settle(self) -> None:
        """Make what was appended safe. Raises `NotFound`, `StagedBytesLost` and
        `StagedFileBusy`."""
        self._open()
        if self._fsync:
            os.fdatasync(self._fd)
        self.safe = self._end

    def _open(self) -> None:
        """Open the file, which is created for its first byte."""
        if self._fd >= 0:
            return
        flags = _FLAGS if self._end else _FLAGS | os.O_CREAT
        with open_staging(self._root) as staging:
            fd = os.open(self._name, flags, 0o666, dir_fd=staging)
            try:
                self._begin(fd)
                if self._fsync and not self._end:
                    os.fsync(staging)
            except BaseException:
                os.close(fd)
                raise
        self._fd = fd

    def _begin(self, fd: int) -> None:
        """Lock the file, and cut off what nobody has confirmed."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StagedFileBusy("another process writes to it") from None
        if os.fstat(fd).st_size < self._end:
            raise StagedBytesLost("the staged file lacks bytes")
        os.ftruncate(fd, self._end)
        os.lseek(fd, self._end, os.SEEK_SET)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalAppender:
    """An `Appender`: one piece is written while the next one arrives."""

    step = STEP

    def __init__(self, threads: Threads, file: AppendedFile) -> None:
        self._threads = threads
        self._file = file
        self._job: Future[None] | None = None

    @property
    def safe(self) -> int:
        return self._file.safe

    async def write(self, data: bytes | bytearray) -> None:
        await self._finish_job()
        self._job = self._threads.submit(self._file.append, data)

    async def settle(self) -> None:
        await self._finish_job()
        if not self._file.is_settled:
            await self._threads.run(self._file.settle)

    async def _finish_job(self) -> None:
        job = self._job
        if job is not None:
            await self._threads.result(job)
            self._job = None

    @property
    def job(self) -> Future[Any] | None:
        """What may still be running."""
        return self._job


def place(root: str, staged: Staged, *, fsync: bool) -> Entry:
    """Move the staged file to its place.

    Raises `PathConflict`, `NotFound` and `StagedBytesLost`.
    """
    with open_staging(root) as staging:
        status = os.stat(staged.name, dir_fd=staging, follow_symlinks=False)
        if status.st_size != staged.length:
            raise StagedBytesLost("the staged file lacks bytes")
        status, is_distinct = stamp(staged.name, staging)
        replaced = put_in_place(root, staging, staged.name, staged.path, fsync=fsync)
    entry = entry_from_stat("/".join(staged.path.parts), status)
    entry.replaced, entry.is_distinct = replaced, is_distinct
    return entry


def create_empty(root: str, name: str) -> None:
    """Create a staged file of no bytes."""
    with open_staging(root) as staging:
        os.close(os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=staging))
