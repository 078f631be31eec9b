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
    directory_entry,
    entry_from_stat,
    open_directory,
    tree_of,
)
from common.storage.paths import UserPath, check_target
from common.storage.protocol import Entry

_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})


def rename(root: str, source: UserPath, target: UserPath, replace: bool) -> Entry:
    """Move a file or an empty directory; see `Storage.rename` for the order of refusals."""
    if source.is_root:
        raise DirectoryNotEmpty("the root of the tree holds the predefined directories")
    with open_directory(tree_of(root, source.user), source.parts[:-1]) as fd:
        status = _check_source(fd, source)
        check_target(source, target)
        is_directory = modes.S_ISDIR(status.st_mode)
        moved = UserPath(target.user, target.parts, slash=is_directory)
        entry = directory_entry(moved) if is_directory else entry_from_stat(str(moved), status)
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
                    _move_without_replacing(fd, source, target_fd, target, status)
            except (IsADirectoryError, NotADirectoryError):
                raise PathConflict(f"'{target}' is taken by something else") from None
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                raise directory_there(target) from None
        return entry


def _check_source(parent: int, source: UserPath) -> os.stat_result:
    status = os.stat(source.name, dir_fd=parent, follow_symlinks=False)
    if modes.S_ISREG(status.st_mode):
        return status
    if not modes.S_ISDIR(status.st_mode):
        raise NotFound(f"there is nothing at '{source}'")
    fd = os.open(source.name, DIRECTORY_FLAGS, dir_fd=parent)
    try:
        with os.scandir(fd) as found:
            if next(found, None) is not None:
                raise DirectoryNotEmpty(f"'{source}' holds something")
    finally:
        os.close(fd)
    if source.is_predefined:
        raise PredefinedDirectory(f"'{source}' is a predefined directory")
    return status


def _taken(target: UserPath) -> TargetExists:
    return TargetExists(f"there is something at '{target}'")


def _move_without_replacing(
    source_fd: int, source: UserPath, target_fd: int, target: UserPath, status: os.stat_result
) -> None:
    """Move a file only if the target is free, by a hard link where the disk supports it."""
    try:
        os.link(
            source.name,
            target.name,
            src_dir_fd=source_fd,
            dst_dir_fd=target_fd,
            follow_symlinks=False,
        )
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _move_onto_placeholder(source_fd, source, target_fd, target)
        return
    now = os.stat(source.name, dir_fd=source_fd, follow_symlinks=False)
    if now.st_ino == status.st_ino:  # else the source was replaced meanwhile: keep the new one
        os.unlink(source.name, dir_fd=source_fd)


def _move_onto_placeholder(
    source_fd: int, source: UserPath, target_fd: int, target: UserPath
) -> None:
    """Reserve the target with an empty file, then replace that: for disks without hard links."""
    try:
        os.close(os.open(target.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=target_fd))
    except FileExistsError:
        raise _taken(target) from None
    try:
        os.rename(source.name, target.name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
    except BaseException:
        os.unlink(target.name, dir_fd=target_fd)
        raise
