"""Change a tree on the local disk: blocking functions that create, place and remove.

A refused or failed change removes the directories that it has created. A directory is removed by
renaming it into the staging directory, so that it vanishes in one step; it is deleted there (see
`staging.discard`).
"""

import errno
import os
import stat as modes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from common.storage.errors import PathConflict, StorageUnavailable
from common.storage.local.staging import new_name, open_staging
from common.storage.local.tree import (
    DIRECTORY_FLAGS,
    closing_descriptor,
    create_layout,
    descend,
    ignore_absent,
    open_directory,
    size_of,
    tree_of,
)
from common.storage.paths import PREDEFINED, UserPath

_ATTEMPTS: Final = 20
"""Attempts of a step while others keep removing the directory that it has just created."""


def directory_there(path: UserPath) -> PathConflict:
    return PathConflict(f"'{'/'.join(path.parts)}' is a directory")


def no_directory_there(parts: Sequence[str]) -> PathConflict:
    return PathConflict(f"'{'/'.join(parts)}' is not a directory")


def check_not_permanent(path: UserPath) -> None:
    """Raise `PathConflict` for a directory that always exists, even if it is missing on disk."""
    if path.is_permanent:
        raise directory_there(path)


def check_place(root: str, path: UserPath) -> os.stat_result | None:
    """The status of what is at `path`, where a file is to be placed, if anything is there.

    Creates nothing. Raises `PathConflict` if a directory is there, or if a parent is not one.
    """
    check_not_permanent(path)
    try:
        with closing_descriptor(_descend(tree_of(root, path.user), path.parent)) as fd:
            status = os.stat(path.name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if modes.S_ISDIR(status.st_mode):
        raise directory_there(path)
    return status


def check_directory(root: str, path: UserPath) -> None:
    """Raise `PathConflict` if `path` or a parent exists and is not a directory."""
    with suppress(FileNotFoundError):
        os.close(_descend(tree_of(root, path.user), path))


def make_directory(root: str, path: UserPath) -> None:
    """Create the directory `path` and its parents where missing. Raises `PathConflict`."""
    with make_directories(root, path):
        pass


@contextmanager
def make_directories(root: str, path: UserPath) -> Iterator[int]:
    """Descriptor of the directory `path`, created with its parents where missing.

    If the body raises, the directories that were created here are removed. Raises `PathConflict`.
    """
    tree = tree_of(root, path.user)
    made: list[int] = []
    try:
        with closing_descriptor(descend_making(tree, path, made)) as fd:
            yield fd
    except BaseException:
        _unmake(tree, path, made)
        raise


def descend_making(tree: str, path: UserPath, made: list[int]) -> int:
    """Open the directory `path`; the depths of those that are created on the way go to `made`.

    The caller closes the descriptor. Raises `PathConflict`.
    """
    for _ in range(_ATTEMPTS):
        made.clear()
        try:
            return _descend(tree, path, made)
        except FileNotFoundError:
            # the user has no tree yet, or a directory was removed before it could be opened
            create_layout(tree)
    raise StorageUnavailable("the directory keeps being removed")


def _descend(tree: str, path: UserPath, made: list[int] | None = None) -> int:
    """Like `descend`, but raises `PathConflict` for a component that is not a directory.

    With `made`, creates missing directories and adds their depths to it.
    """
    fd = descend(tree, ())
    for depth, part in enumerate(path.parts):
        try:
            try:
                child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
            except FileNotFoundError:
                if made is None:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                    made.append(depth)
                child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise no_directory_there(path.parts[: depth + 1]) from None
            raise
        finally:
            os.close(fd)
        fd = child
    return fd


def _unmake(tree: str, path: UserPath, made: Sequence[int]) -> None:
    """Remove the directories at these depths, except those that are in use by now."""
    with suppress(OSError):
        for depth in reversed(made):
            if depth == 0 and path.parts[0] in PREDEFINED:
                continue
            with open_directory(tree, path.parts[:depth]) as fd:
                os.rmdir(path.parts[depth], dir_fd=fd)


def put_in_place(root: str, staging: int, staged: str, path: UserPath, *, fsync: bool) -> int:
    """Move the staged file to `path`, replacing a file there; returns that file's size.

    Raises `PathConflict`.
    """
    check_not_permanent(path)
    for _ in range(_ATTEMPTS):
        try:
            with make_directories(root, path.parent) as fd:
                replaced = _size_at(fd, path.name)
                os.replace(staged, path.name, src_dir_fd=staging, dst_dir_fd=fd)
                if fsync:
                    os.fsync(fd)
        except IsADirectoryError:
            raise directory_there(path) from None
        except FileNotFoundError:
            continue  # the parent was deleted after it was opened
        else:
            return replaced
    raise StorageUnavailable("the directory keeps being removed")


def _size_at(parent: int, name: str) -> int:
    """Size of the file `name`; 0 if there is none."""
    with suppress(FileNotFoundError):
        return size_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
    return 0


def detach(root: str, path: UserPath) -> tuple[list[str], int]:
    """Remove what is at `path`, if anything, from the tree.

    Files and links are deleted; directories are moved into the staging directory. Returns the
    directories' names there, and the size of the deleted files. The root and the predefined
    directories are recreated empty.
    """
    tree = tree_of(root, path.user)
    detached: list[str] = []
    size = 0
    with ignore_absent:
        with open_directory(tree, path.parts[:-1]) as fd, open_staging(root) as staging:
            for name in os.listdir(fd) if path.is_root else [path.name]:
                size += _detach_one(fd, name, staging, detached)
        if path.is_permanent:
            create_layout(tree)
    return detached, size


def _detach_one(parent: int, name: str, staging: int, detached: list[str]) -> int:
    with suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if modes.S_ISDIR(status.st_mode):
            staged = new_name()
            os.rename(name, staged, src_dir_fd=parent, dst_dir_fd=staging)
            detached.append(staged)
        else:
            os.unlink(name, dir_fd=parent)
            return size_of(status)
    return 0
