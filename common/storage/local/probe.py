"""Try a root out: whether it is a directory in which files can be created, read and deleted."""

import errno
import os
from typing import Final

from common.storage.errors import StorageUnavailable, StorageUnusable
from common.storage.local.staging import new_name, open_staging

_OPERATORS: Final = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL),
    }
)
"""Errors that last until an operator changes the setting or the permissions."""

_CONTENT: Final = b"probe"


def root_error(error: OSError) -> StorageUnavailable:
    """What an error on the root itself means; shown to operators alone."""
    kind = StorageUnusable if error.errno in _OPERATORS else StorageUnavailable
    reason = "not a directory" if error.errno == errno.EEXIST else error.strerror or str(error)
    return kind(f"{reason[:1].lower()}{reason[1:]}")


def probe(root: str) -> None:
    """Create, read and delete a file below `root`, which is created if it is missing."""
    try:
        os.makedirs(root, exist_ok=True)
        with open_staging(root) as staging:
            name = new_name()
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=staging)
            try:
                os.write(file, _CONTENT)
                if os.pread(file, len(_CONTENT), 0) != _CONTENT:
                    raise StorageUnavailable("a file does not hold what was written to it")
            finally:
                os.close(file)
                os.unlink(name, dir_fd=staging)
    except OSError as error:
        raise root_error(error) from error
