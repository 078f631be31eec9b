"""The staging directory beside the users' trees: unfinished uploads, and directories to delete.

It is on the same file system as the trees, so that files and directories enter and leave it by one
rename. What killed processes leave in it, `stale` finds and `discard` deletes.
"""

import errno
import os
import secrets
import stat as modes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from common.storage.local.tree import (
    DIRECTORY_FLAGS,
    closing_descriptor,
    descend,
    make_below_root,
    size_of,
)
from common.storage.paths import RESERVED_USER_NAME

RESUMABLE: Final = "resumable-"
"""How names of files begin that arrive in portions: these may rest for days."""

BUNDLE: Final = "bundle-"
"""How names of directories begin that hold files which are placed together."""

_FINE: Final = 1_000
"""Nanoseconds to which a file system rounds times if they are to be distinct: two writes are never
so close together, unlike within a second, as which some store them."""


def new_name() -> str:
    """A unique name in the staging directory."""
    return secrets.token_hex(16)


@contextmanager
def open_staging(root: str) -> Iterator[int]:
    """Descriptor of the staging directory, which is created if missing."""
    place = f"{root}/{RESERVED_USER_NAME}"
    try:
        fd = descend(place, ())
    except FileNotFoundError:
        make_below_root(place)
        fd = descend(place, ())
    with closing_descriptor(fd):
        yield fd


def stamp(file: int | str, directory: int | None = None) -> tuple[os.stat_result, bool]:
    """Give a staged file a time of modification that no later write to it can have.

    `file`: a descriptor, or a name in the directory with this one. Returns the file's status, and
    whether it has that time. The system's own times are as coarse as its clock's ticks, some
    milliseconds: a write just after the upload might leave time, size and inode as they are.
    """
    options: dict[str, Any] = {}
    if isinstance(file, str):
        options = {"dir_fd": directory, "follow_symlinks": False}
    now = time.time_ns()
    with suppress(OSError):  # some network file systems set no times
        os.utime(file, ns=(now, now), **options)
    status = os.stat(file, **options)
    return status, abs(status.st_mtime_ns - now) <= _FINE


def stale(root: str, max_age: float) -> list[str]:
    """Names of leftovers: files and bundles not written to for `max_age` seconds, and directories.

    Any other directory is only moved here to be deleted, and several processes may delete it
    together.
    """
    if not os.path.isdir(f"{root}/"):
        return []
    oldest = time.time() - max_age
    names = []
    with open_staging(root) as staging, os.scandir(staging) as found:
        for item in found:
            with suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                is_detached = modes.S_ISDIR(status.st_mode) and not item.name.startswith(BUNDLE)
                if is_detached or status.st_mtime < oldest:
                    names.append(item.name)
    return names


def discard(root: str, names: list[str], limit: int) -> int:
    """Delete what has these names in the staging directory, about `limit` files per call.

    Removes from `names` what it has deleted; call it until `names` is empty. A subdirectory is
    moved up and becomes one more name, so that no depth needs more descriptors. Returns the size
    of the deleted files.
    """
    size = 0
    with open_staging(root) as staging:
        while names and limit > 0:
            deleted, freed = _discard_some(staging, names, limit)
            limit -= deleted
            size += freed
    return size


def _discard_some(staging: int, names: list[str], limit: int) -> tuple[int, int]:
    """Delete the last of `names`, or `limit` of what it holds.

    Returns the number of deletions and the size of the deleted files.
    """
    name = names.pop()
    try:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=staging)
    except FileNotFoundError:
        return 1, 0
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=staging)
        return 1, 0
    with closing_descriptor(fd):
        count, size = _empty(fd, staging, names, limit)
    try:
        os.rmdir(name, dir_fd=staging)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        # more than `limit`, or an upload that had opened it has just added a file
        names.append(name)
    return count + 1, size


def _empty(fd: int, staging: int, names: list[str], limit: int) -> tuple[int, int]:
    count = size = 0
    with os.scandir(fd) as found:
        for item in found:
            if count >= limit:
                break
            count += 1
            with suppress(FileNotFoundError):
                if item.is_dir(follow_symlinks=False):
                    moved = new_name()
                    os.rename(item.name, moved, src_dir_fd=fd, dst_dir_fd=staging)
                    names.append(moved)
                else:
                    status = item.stat(follow_symlinks=False)
                    os.unlink(item.name, dir_fd=fd)
                    size += size_of(status)
    return count, size
