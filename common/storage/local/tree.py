"""Read a tree on the local disk: blocking functions that never follow a symbolic link.

Each component of a path is opened relative to its parent's descriptor, with `O_NOFOLLOW`, so that
no link below a user's directory leads out of it. Links, sockets, pipes and devices do not exist for
these functions. They hold at most three descriptors at a time, at any depth of the tree, and raise
`OSError` (see `threads.storage_error`) beside `NotFound`.
"""

import errno
import os
import stat as modes
from bisect import bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Final

from common.storage.errors import InvalidPath, NotFound, StorageUnusable
from common.storage.paths import PREDEFINED, UserPath, is_user_name
from common.storage.protocol import BATCH, Entry

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""The system's errors for a path at which there is no file or directory (links are neither)."""

STEP: Final = 0.003
"""Seconds after which a step ends, whatever it has found: others wait for their turn meanwhile, and
the event loop for the interpreter."""

_BETWEEN_LOOKS: Final = 64
"""Names that are inspected between two looks at the clock."""


def tree_of(root: str, user: str) -> str:
    """The directory of `user`; raises `InvalidPath` if the name cannot be one."""
    if not is_user_name(user):
        raise InvalidPath("the user's name cannot be the name of a directory")
    return f"{root}/{user}"


class _IgnoreAbsent:
    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: object, __: object) -> bool:
        return isinstance(error, NotFound) or (isinstance(error, OSError) and error.errno in ABSENT)


ignore_absent: Final = _IgnoreAbsent()
"""A context that ends quietly at an error that means that there is nothing at a path."""


@contextmanager
def closing_descriptor(fd: int) -> Iterator[int]:
    """`fd`, which is closed at the end of the context."""
    try:
        yield fd
    finally:
        os.close(fd)


def descend(tree: str | int, parts: Sequence[str]) -> int:
    """Open the directory `parts` below `tree`; the caller closes the descriptor.

    `tree` is a path, or a descriptor, which stays open.
    """
    if isinstance(tree, int):
        if not parts:
            return os.dup(tree)
        fd, parts = os.open(parts[0], DIRECTORY_FLAGS, dir_fd=tree), parts[1:]
    else:
        try:
            fd = os.open(tree, DIRECTORY_FLAGS)
        except NotADirectoryError as error:
            if not os.path.isdir(os.path.dirname(tree)):
                raise StorageUnusable("the root is not a directory") from error
            raise
    for part in parts:
        try:
            child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def make_below_root(directory: str) -> None:
    """Create a directory that lies in the root, and the root where it is missing.

    Raises `StorageUnusable` where that is impossible: it does not mean that something is absent.
    """
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        if error.errno in ABSENT:
            raise StorageUnusable("the root cannot be a directory") from error
        raise


def create_layout(tree: str) -> None:
    """Create the user's directory and the predefined ones in it where missing."""
    make_below_root(tree)
    with closing_descriptor(descend(tree, ())) as fd:
        for name in PREDEFINED:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=fd)


@contextmanager
def open_directory(tree: str | int, parts: Sequence[str]) -> Iterator[int]:
    """Descriptor of a directory. If `tree` is a path, the root and the predefined directories are
    recreated where missing."""
    try:
        fd = descend(tree, parts)
    except FileNotFoundError:
        if isinstance(tree, int) or (parts and parts[0] not in PREDEFINED):
            raise
        create_layout(tree)
        fd = descend(tree, parts)
    try:
        yield fd
    finally:
        os.close(fd)


def shown(name: str) -> str:
    """`name` as clients see it: bytes that are not UTF-8 become U+FFFD."""
    if name.isascii():
        return name
    return os.fsencode(name).decode(errors="replace")


def entry_from_stat(path: str, status: os.stat_result) -> Entry:
    """The entry of a regular file; its etag changes when the file is replaced or written to."""
    size = status.st_size
    # twice as fast as an f-string, in the innermost loop of every listing
    tag = "%x-%x-%x" % (status.st_mtime_ns, size, status.st_ino)  # noqa: UP031
    return Entry(path, size, status.st_mtime, tag)


def size_of(status: os.stat_result) -> int:
    """Size of a regular file; 0 of anything else, which takes nothing of a user's share."""
    return status.st_size if modes.S_ISREG(status.st_mode) else 0


def entry_at(tree: str | int, path: UserPath) -> Entry:
    """The file or directory at `path`; a trailing slash makes no difference."""
    if path.is_permanent:
        with open_directory(tree, path.parts):
            return Entry(str(path.as_directory))
    with open_directory(tree, path.parts[:-1]) as fd:
        status = os.stat(path.name, dir_fd=fd, follow_symlinks=False)
    if modes.S_ISDIR(status.st_mode):
        return Entry(str(path.as_directory))
    if not modes.S_ISREG(status.st_mode):
        raise NotFound(f"there is nothing at '{path}'")
    return entry_from_stat("/".join(path.parts), status)


def walk(
    tree: str | int, path: UserPath, *, recursive: bool = True, after: str = "", batch: int = BATCH
) -> Generator[tuple[list[Entry], bool], None, None]:
    """What a directory holds, sorted by path; with `recursive`, everything below it.

    Yields up to `batch` entries at a time, fewer where that takes longer than `STEP`, and whether
    they are the last ones. Paths that do not sort after `after` are omitted, as are files that
    vanish during the walk. The root always holds the predefined directories.
    """
    ends = monotonic() + STEP
    start = _Level(path.parts, str(path.as_directory))
    levels = [start]
    entries: list[Entry] = []
    while levels:
        level = levels.pop()
        inner = None
        try:
            with open_directory(tree, level.parts) as fd:
                if level.names is None:
                    level.names = level.list_names(fd, after)
                while level.names and inner is None:
                    most = min(_BETWEEN_LOOKS, batch - len(entries))
                    inner = level.read(fd, entries, most, after=after, recursive=recursive)
                    if len(entries) >= batch or monotonic() > ends:
                        yield entries, False
                        entries, ends = [], monotonic() + STEP
        except OSError as error:
            if error.errno not in ABSENT or start.names is None:
                raise
        if inner is not None:
            levels += (level, inner)  # the rest of the outer level sorts after all of the inner
    yield entries, True


class _Level:
    """A directory that is being walked; its descriptor is closed while its subdirectories are read.

    `names`: what is still to be read, in reverse order; directories' names end in a slash.
    """

    def __init__(self, parts: tuple[str, ...], prefix: str) -> None:
        self.parts = parts
        self.names: list[str] | None = None
        self._prefix = prefix

    def list_names(self, fd: int, after: str) -> list[str]:
        with os.scandir(fd) as found:
            names = [
                f"{item.name}/" if item.is_dir(follow_symlinks=False) else item.name
                for item in found
            ]
        if not self.parts:
            names = list({*names, *(f"{name}/" for name in PREDEFINED)})
        names.sort(key=shown)
        if after:
            later = bisect_right(names, after, key=self._path)
            if later and names[later - 1][-1] == "/":
                later -= 1  # a directory before `after` may hold paths that sort after it
            del names[:later]
        names.reverse()
        return names

    def _path(self, name: str) -> str:
        return self._prefix + shown(name)

    def read(
        self, fd: int, entries: list[Entry], most: int, *, after: str, recursive: bool
    ) -> "_Level | None":
        """Add what the next `most` names stand for; stops at a directory and returns it to be
        entered."""
        names = self.names or []
        for _ in range(min(most, len(names))):
            name = names.pop()
            path = self._path(name)
            if name[-1] == "/":
                if path > after:
                    entries.append(Entry(path))
                if recursive:
                    return _Level((*self.parts, name[:-1]), path)
                continue
            try:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if modes.S_ISREG(status.st_mode):
                entries.append(entry_from_stat(path, status))
        return None
