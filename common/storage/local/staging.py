"""The staging directory beside the users' trees: uploads in the making, removals under way.

It lies on the same file system as the trees, so that things enter and leave it by one rename.
Killed processes leave things behind in it; `stale` finds those and `discard` deletes them.
"""

import errno
import os
import secrets
import stat as modes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from common.storage.local.tree import DIRECTORY_FLAGS, descend
from common.storage.paths import RESERVED_USER_NAME


def new_name() -> str:
    """A name in the staging directory that nobody else has."""
    return secrets.token_hex(16)


@contextmanager
def open_staging(root: str) -> Iterator[int]:
    """Descriptor of the staging directory, which is made if missing."""
    place = f"{root}/{RESERVED_USER_NAME}"
    try:
        fd = descend(place, ())
    except FileNotFoundError:
        os.makedirs(place, exist_ok=True)
        fd = descend(place, ())
    try:
        yield fd
    finally:
        os.close(fd)


def stale(root: str, max_age: float) -> list[str]:
    """Names of what a killed process left: files not written to for `max_age` seconds.

    Directories count whatever their age: they only ever come here to be deleted, and two
    processes may delete the same one at once.
    """
    if not os.path.isdir(f"{root}/"):
        return []
    oldest = time.time() - max_age
    names = []
    with open_staging(root) as staging, os.scandir(staging) as found:
        for item in found:
            with suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                if modes.S_ISDIR(status.st_mode) or status.st_mtime < oldest:
                    names.append(item.name)
    return names


def discard(root: str, names: list[str], limit: int) -> None:
    """Delete what has these names in the staging directory, about `limit` things per call.

    Drops from `names` what is done; to be called until that is empty. A directory inside one of
    them is moved up beside it and becomes one more name: thus no depth needs many descriptors.
    """
    with open_staging(root) as staging:
        while names and limit > 0:
            limit -= _discard_some(staging, names, limit)


def _discard_some(staging: int, names: list[str], limit: int) -> int:
    """Delete the last of `names`, or `limit` of the things in it; returns how many went."""
    name = names.pop()
    try:
        fd = os.open(name, DIRECTORY_FLAGS, dir_fd=staging)
    except FileNotFoundError:
        return 1
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=staging)
        return 1
    try:
        count = _empty(fd, staging, names, limit)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=staging)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        # Not done yet, or an upload that had opened it has just put a file in it.
        names.append(name)
    return count + 1


def _empty(fd: int, staging: int, names: list[str], limit: int) -> int:
    count = 0
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
                    os.unlink(item.name, dir_fd=fd)
    return count
