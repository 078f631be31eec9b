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
    ABSENT,
    DIRECTORY_FLAGS,
    create_layout,
    descend,
    open_directory,
    tree_of,
)
from common.storage.paths import PREDEFINED, UserPath

_ATTEMPTS: Final = 20
"""Attempts of a step while others keep removing the directory that it has just created."""


def _conflict(error: OSError, path: UserPath, depth: int) -> Exception:
    """`PathConflict` if `error` says that the part at `depth` is no directory, else `error`."""
    if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
        return error
    return PathConflict(f"'{'/'.join(path.parts[: depth + 1])}' is not a directory")


def directory_there(path: UserPath) -> PathConflict:
    return PathConflict(f"'{'/'.join(path.parts)}' is a directory")


def check_not_permanent(path: UserPath) -> None:
    """Raise `PathConflict` for a directory that always exists, even if it is missing on disk."""
    if path.is_root or path.is_predefined:
        raise directory_there(path)


def check_place(root: str, path: UserPath) -> os.stat_result | None:
    """The status of what is at `path`, where a file is to be placed, if anything is there.

    Creates nothing. Raises `PathConflict` if a directory is there, or if a parent is not one.
    """
    check_not_permanent(path)
    fd = _descend_existing(root, path.parent)
    if fd is None:
        return None
    try:
        status = os.stat(path.name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)
    if modes.S_ISDIR(status.st_mode):
        raise directory_there(path)
    return status


def check_directory(root: str, path: UserPath) -> None:
    """Raise `PathConflict` if `path` or a parent exists and is not a directory."""
    fd = _descend_existing(root, path)
    if fd is not None:
        os.close(fd)


def _descend_existing(root: str, path: UserPath) -> int | None:
    """Like `descend`; None if the directory is missing. Raises `PathConflict`."""
    try:
        fd = descend(tree_of(root, path.user), ())
    except FileNotFoundError:
        return None
    for depth, part in enumerate(path.parts):
        try:
            child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _conflict(error, path, depth) from None
        finally:
            os.close(fd)
        fd = child
    return fd


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
    for attempt in range(_ATTEMPTS):
        made: list[int] = []
        try:
            fd = _descend_making(tree, path, made)
        except FileNotFoundError:
            # a directory was removed between its creation and its opening
            if attempt == _ATTEMPTS - 1:
                raise StorageUnavailable("the directory keeps being removed") from None
        except BaseException:
            _unmake(tree, path, made)
            raise
        else:
            break
    try:
        yield fd
    except BaseException:
        _unmake(tree, path, made)
        raise
    finally:
        os.close(fd)


def _descend_making(tree: str, path: UserPath, made: list[int]) -> int:
    """Like `descend`, but creates missing directories and appends their depths to `made`."""
    try:
        fd = descend(tree, ())
    except FileNotFoundError:
        create_layout(tree)
        fd = descend(tree, ())
    for depth, part in enumerate(path.parts):
        try:
            try:
                child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                    made.append(depth)
                child = os.open(part, DIRECTORY_FLAGS, dir_fd=fd)
        except OSError as error:
            raise _conflict(error, path, depth) from None
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


def put_in_place(root: str, staging: int, staged: str, path: UserPath, *, fsync: bool) -> None:
    """Move the staged file to `path`, replacing a file there. Raises `PathConflict`."""
    check_not_permanent(path)
    for _ in range(_ATTEMPTS):
        try:
            with make_directories(root, path.parent) as fd:
                os.replace(staged, path.name, src_dir_fd=staging, dst_dir_fd=fd)
                if fsync:
                    os.fsync(fd)
        except IsADirectoryError:
            raise directory_there(path) from None
        except FileNotFoundError:
            continue  # the parent was deleted after it was opened
        else:
            return
    raise StorageUnavailable("the directory keeps being removed")


def detach(root: str, path: UserPath) -> list[str]:
    """Remove what is at `path`, if anything, from the tree.

    Files and links are deleted; directories are moved into the staging directory, under the
    returned names. The root and the predefined directories are recreated empty.
    """
    tree = tree_of(root, path.user)
    detached: list[str] = []
    try:
        if path.is_root:
            with open_directory(tree, ()) as fd, open_staging(root) as staging:
                for name in os.listdir(fd):
                    _detach_one(fd, name, staging, detached)
        else:
            with open_directory(tree, path.parts[:-1]) as fd, open_staging(root) as staging:
                _detach_one(fd, path.name, staging, detached)
        if path.is_root or path.is_predefined:
            create_layout(tree)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
    return detached


def _detach_one(parent: int, name: str, staging: int, detached: list[str]) -> None:
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if modes.S_ISDIR(status.st_mode):
            staged = new_name()
            os.rename(name, staged, src_dir_fd=parent, dst_dir_fd=staging)
            detached.append(staged)
        else:
            os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
