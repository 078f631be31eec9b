"""Rename on the local disk: blocking, and without replacing anything that must stay."""

import errno
import os
import stat as modes
from typing import Final

from common.storage.errors import (
    DirectoryNotEmpty,
    NotFound,
    PathConflict,
    PredefinedDirectory,
    TargetExists,
)
from common.storage.local.changes import check_place, directory_there, make_directories
from common.storage.local.tree import (
    DIRECTORY_FLAGS,
    closing_descriptor,
    entry_from_stat,
    open_directory,
    size_of,
    tree_of,
)
from common.storage.paths import UserPath, check_target
from common.storage.protocol import Entry

NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""The system's errors where a file cannot be linked to."""


def rename(root: str, source: UserPath, target: UserPath, replace: bool) -> Entry:
    """Move a file or an empty directory; see `Storage.rename` for the order of refusals."""
    if source.is_root:
        raise DirectoryNotEmpty("the root of the tree holds the predefined directories")
    with open_directory(tree_of(root, source.user), source.parts[:-1]) as fd:
        status = _check_source(fd, source)
        check_target(source, target)
        is_directory = modes.S_ISDIR(status.st_mode)
        moved = UserPath(target.user, target.parts, slash=is_directory)
        entry = Entry(str(moved)) if is_directory else entry_from_stat(str(moved), status)
        entry.moved_from = entry.etag
        if source.parts == target.parts:
            return entry
        taken = check_place(root, target)
        if taken is not None and is_directory:
            raise PathConflict(f"'{moved.parent}{moved.name}' is a file")
        if taken is not None and not replace:
            raise _taken(target)
        with make_directories(root, target.parent) as target_fd:
            try:
                if is_directory or replace:
                    os.rename(source.name, target.name, src_dir_fd=fd, dst_dir_fd=target_fd)
                else:
                    _move_without_replacing(fd, source.name, target_fd, target.name, status.st_ino)
            except (IsADirectoryError, NotADirectoryError):
                raise PathConflict(f"'{target}' is taken by something else") from None
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                raise (directory_there if is_directory else _taken)(target) from None
        if taken is not None:
            entry.replaced = size_of(taken)
        return entry


def _check_source(parent: int, source: UserPath) -> os.stat_result:
    status = os.stat(source.name, dir_fd=parent, follow_symlinks=False)
    if modes.S_ISREG(status.st_mode):
        return status
    if not modes.S_ISDIR(status.st_mode):
        raise NotFound(f"there is nothing at '{source}'")
    with (
        closing_descriptor(os.open(source.name, DIRECTORY_FLAGS, dir_fd=parent)) as fd,
        os.scandir(fd) as found,
    ):
        if next(found, None) is not None:
            raise DirectoryNotEmpty(f"'{source}' holds something")
    if source.is_predefined:
        raise PredefinedDirectory(f"'{source}' is a predefined directory")
    return status


def _taken(target: UserPath) -> TargetExists:
    return TargetExists(f"there is something at '{target}'")


def _move_without_replacing(
    source_fd: int, source: str, target_fd: int, target: str, inode: int
) -> None:
    """Move a file by a hard link, or on disks without these onto an empty file that it creates.

    Raises `FileExistsError`.
    """
    try:
        os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
    else:
        # keep a source that was replaced in the meantime
        if os.stat(source, dir_fd=source_fd, follow_symlinks=False).st_ino == inode:
            os.unlink(source, dir_fd=source_fd)
        return
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=target_fd))
    try:
        os.rename(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    except BaseException:
        os.unlink(target, dir_fd=target_fd)
        raise
