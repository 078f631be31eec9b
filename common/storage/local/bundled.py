"""Files on the local disk that appear together: staged as a tree, moved when all are there.

A directory of which there is nothing yet moves as a whole. What a file replaces is linked into the
staging directory until the last one is at its place, so that a failure in between can be undone.
Blocking.
"""

import errno
import os
import stat as modes
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import Final

from common.storage.errors import StorageUnavailable
from common.storage.local.changes import (
    check_place,
    descend_making,
    directory_there,
    no_directory_there,
)
from common.storage.local.rename import NO_LINKS
from common.storage.local.space import FreeSpace
from common.storage.local.staging import BUNDLE, discard, new_name, open_staging, stamp
from common.storage.local.tree import (
    DIRECTORY_FLAGS,
    closing_descriptor,
    descend,
    entry_from_stat,
    open_directory,
    size_of,
    tree_of,
)
from common.storage.paths import RESERVED_USER_NAME, UserPath
from common.storage.protocol import Entry, SmallFile

_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DELETED_AT_ONCE: Final = 500
_STAGED: Final = "tree"
_REPLACED: Final = "replaced"


@contextmanager
def _unless_removed() -> Iterator[None]:
    """What is missing has been moved to its place, and deleted there by others."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageUnavailable("a directory was removed meanwhile") from error


class BundledFiles:
    """The staged files of one bundle, numbered as they came."""

    def __init__(self, root: str, user: str, *, fsync: bool, space: FreeSpace) -> None:
        self._root = root
        self._tree = tree_of(root, user)
        self._fsync = fsync
        self._space = space
        self._kept = -1
        self._moved: set[tuple[str, ...]] = set()
        self._are_distinct = True
        self.paths: list[UserPath] = []
        self.inodes = array("Q")
        self.directories: Sequence[UserPath] = ()
        self.name = f"{BUNDLE}{new_name()}"
        self._staged = f"{root}/{RESERVED_USER_NAME}/{self.name}/{_STAGED}"
        self.is_complete = True
        """Whether there is nothing to undo."""

    def open(self) -> None:
        with open_staging(self._root) as staging:
            os.mkdir(self.name, dir_fd=staging)
            with closing_descriptor(descend(staging, (self.name,))) as fd:
                os.mkdir(_STAGED, dir_fd=fd)
                os.mkdir(_REPLACED, dir_fd=fd)
                self._kept = descend(fd, (_REPLACED,))

    # -- staging ----------------------------------------------------------------------------------
    def add(self, files: Sequence[SmallFile]) -> list[int]:
        """Stage files; returns their inodes. Raises `OutOfSpace`."""
        inodes: list[int] = []
        for _, siblings in groupby(files, lambda file: file.path.parts[:-1]):
            some = list(siblings)
            with self._staged_directory(some[0].path.parent) as parent:
                inodes += [self._write(parent, file) for file in some]
        return inodes

    def _write(self, parent: int, file: SmallFile) -> int:
        fd = os.open(file.path.name, _CREATE_FLAGS, 0o666, dir_fd=parent)
        with closing_descriptor(fd), self._space.reserved(fd, len(file.content)):
            rest = memoryview(file.content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            inode = self._stamp(fd)
            if self._fsync:
                os.fsync(fd)
            return inode

    def _stamp(self, file: int | str, directory: int | None = None) -> int:
        """Make a staged file distinct from all that follow it, if possible; returns its inode."""
        status, is_distinct = stamp(file, directory)
        self._are_distinct &= is_distinct
        return status.st_ino

    @contextmanager
    def _staged_directory(self, path: UserPath) -> Iterator[int]:
        with closing_descriptor(descend_making(self._staged, path, [])) as fd:
            yield fd
            if self._fsync:
                os.fsync(fd)

    def begin(self, path: UserPath) -> str:
        """Prepare for a file at `path`; returns its name in the staging directory.

        Raises `PathConflict` if no file can be placed there as things are.
        """
        check_place(self._root, path)
        with self._staged_directory(path.parent):
            return f"{self.name}/{_STAGED}/{'/'.join(path.parts)}"

    def end(self, path: UserPath) -> int:
        """The file at `path` is complete; returns its inode."""
        with self._staged_directory(path.parent) as parent:
            return self._stamp(path.name, parent)

    def stage_directories(self) -> None:
        for path in self.directories:
            with self._staged_directory(path):
                pass

    # -- placing ----------------------------------------------------------------------------------
    def place(self, first: int, count: int) -> list[Entry]:
        """Move some of the files to their places. Raises `PathConflict`."""
        entries: list[Entry] = []
        numbers = range(first, min(first + count, len(self.paths)))
        for _, siblings in groupby(numbers, lambda number: self.paths[number].parts[:-1]):
            some = list(siblings)
            directory = self.paths[some[0]].parent
            with _unless_removed(), closing_descriptor(self._open(directory)) as fd:
                entries += self._place_into(fd, directory, some)
        return entries

    def place_directories(self) -> None:
        """Make the empty directories. Raises `PathConflict`."""
        for path in self.directories:
            with _unless_removed():
                os.close(self._open(path))

    def _open(self, directory: UserPath) -> int:
        """Open a directory; if it is not there, it is moved there, or the outermost above it."""
        parts = directory.parts
        with open_directory(self._tree, parts[:1]) as fd:
            fd = os.dup(fd)
        for depth in range(1, len(parts)):
            with closing_descriptor(fd):
                try:
                    child = self._enter(fd, parts[: depth + 1])
                except OSError as error:
                    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                        raise no_directory_there(parts[: depth + 1]) from None
                    raise
            fd = child
        return fd

    def _enter(self, parent: int, parts: tuple[str, ...]) -> int:
        with suppress(FileNotFoundError):
            return os.open(parts[-1], DIRECTORY_FLAGS, dir_fd=parent)
        try:
            os.rename(f"{self._staged}/{'/'.join(parts)}", parts[-1], dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise  # somebody has made it just now
        else:
            self._moved.add(parts)
            if self._fsync:
                os.fsync(parent)
        return os.open(parts[-1], DIRECTORY_FLAGS, dir_fd=parent)

    def _place_into(self, parent: int, directory: UserPath, numbers: list[int]) -> Iterator[Entry]:
        if self._is_moved(directory.parts):
            for number in numbers:
                yield self._entry(parent, number, 0)
            return
        with self._staged_directory(directory) as staged:
            for number in numbers:
                name = self.paths[number].name
                replaced = self._keep_replaced(parent, number)
                try:
                    os.replace(name, name, src_dir_fd=staged, dst_dir_fd=parent)
                except IsADirectoryError:
                    raise directory_there(self.paths[number]) from None
                yield self._entry(parent, number, replaced)
        if self._fsync:
            os.fsync(parent)

    def _is_moved(self, parts: tuple[str, ...]) -> bool:
        return any(parts[:depth] in self._moved for depth in range(2, len(parts) + 1))

    def _entry(self, parent: int, number: int, replaced: int) -> Entry:
        path = self.paths[number]
        status = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        entry = entry_from_stat("/".join(path.parts), status)
        entry.replaced, entry.is_distinct = replaced, self._are_distinct
        return entry

    def _keep_replaced(self, parent: int, number: int) -> int:
        """Keep the file that is to be replaced, if there is one; returns its size."""
        path = self.paths[number]
        try:
            status = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        if modes.S_ISDIR(status.st_mode):
            raise directory_there(path)
        kept, target = str(number), self._kept
        try:
            os.link(path.name, kept, src_dir_fd=parent, dst_dir_fd=target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.rename(path.name, kept, src_dir_fd=parent, dst_dir_fd=target)
        return size_of(status)

    # -- the end ----------------------------------------------------------------------------------
    def close(self) -> None:
        """Remove what is staged, and unless the bundle is complete all that was placed."""
        if self._kept < 0:
            return
        if not self.is_complete:
            for number in range(len(self.inodes)):
                with suppress(OSError):
                    self._take_back(number)
            directories = {path.parts for path in self.directories}
            directories |= {path.parts[:-1] for path in self.paths}
            self._remove_moved(directories)
        os.close(self._kept)
        names = [self.name]
        while names:
            discard(self._root, names, _DELETED_AT_ONCE)

    def _take_back(self, number: int) -> None:
        """Put what was replaced back, or remove the file, unless it has been replaced since."""
        path, kept = self.paths[number], str(number)
        with open_directory(self._tree, path.parts[:-1]) as parent:
            with suppress(FileNotFoundError):
                status = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
                if status.st_ino != self.inodes[number]:
                    return
            try:
                os.replace(kept, path.name, src_dir_fd=self._kept, dst_dir_fd=parent)
            except FileNotFoundError:
                os.unlink(path.name, dir_fd=parent)

    def _remove_moved(self, directories: set[tuple[str, ...]]) -> None:
        """Remove the directories that were moved, and those in them, unless others use them."""
        within = {
            parts[:depth]
            for parts in directories
            for depth in range(2, len(parts) + 1)
            if self._is_moved(parts[:depth])
        }
        for parts in sorted(within, key=len, reverse=True):
            with suppress(OSError), open_directory(self._tree, parts[:-1]) as parent:
                os.rmdir(parts[-1], dir_fd=parent)
