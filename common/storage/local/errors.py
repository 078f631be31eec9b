"""What the operating system's errors mean for a storage on the local disk."""

import errno
from typing import Final

from common.storage.errors import (
    InvalidPath,
    NotFound,
    OutOfSpace,
    StorageError,
    StorageUnavailable,
)

_MEANING: Final[dict[int | None, tuple[type[StorageError], str]]] = {
    errno.ENOENT: (NotFound, "there is nothing at this path"),
    errno.ENOTDIR: (NotFound, "there is nothing at this path"),
    errno.EISDIR: (NotFound, "there is no file at this path"),
    errno.ELOOP: (NotFound, "there is nothing at this path"),
    errno.ENXIO: (NotFound, "there is nothing at this path"),
    errno.ENOSPC: (OutOfSpace, "the storage is full"),
    errno.EDQUOT: (OutOfSpace, "the storage's quota is used up"),
    errno.EFBIG: (OutOfSpace, "the file is larger than the storage can hold"),
    errno.ENAMETOOLONG: (InvalidPath, "the path holds a name that is too long for the storage"),
    errno.EILSEQ: (InvalidPath, "the path holds a name that the storage cannot hold"),
}


def translate(error: OSError) -> StorageError:
    """The refusal that `error` amounts to; it never tells where on the disk it happened."""
    kind, sentence = _MEANING.get(
        error.errno, (StorageUnavailable, "the storage does not answer as it should")
    )
    return kind(sentence)
