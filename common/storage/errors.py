"""Refusals and failures of a storage. None of them knows HTTP."""


class StorageError(Exception):
    """Base of the errors below; `str()` is a sentence for the user."""


class InvalidPath(StorageError):
    """The path holds `.`, `..` or control characters, or a name that no storage can hold."""


class NotFound(StorageError):
    """Nothing is stored at the path, or not of the requested kind."""


class PathConflict(StorageError):
    """A file is where a directory is needed, or the reverse."""


class DirectoryNotEmpty(StorageError):
    """A directory that is not empty cannot be renamed; the root never is empty."""


class PredefinedDirectory(StorageError):
    """None of the five predefined directories can be renamed."""


class TargetExists(StorageError):
    """The target of a rename exists and must not be replaced."""


class OutOfSpace(StorageError):
    """The storage has no space for the bytes (disk full, quota exceeded)."""


class StorageUnavailable(StorageError):
    """The storage does not respond; the same call may succeed later."""


class TooManyFiles(StorageError):
    """A survey found more files than were asked for."""


class ShareUsedUp(StorageError):
    """The user's own transfers hold all that one user may hold; it is free again later."""


class StagedFileBusy(StorageError):
    """Another process appends to the staged file."""


class StagedBytesLost(StorageError):
    """The staged file lacks bytes that were safe, by a failure of the storage or by other means."""


class StorageUnusable(StorageUnavailable):
    """The storage cannot work until an operator acts: its bucket or its root is missing or closed.

    The sentence is for operators.
    """


class AccessRefused(StorageError):
    """The storage lets nobody, or not this service, have the file; the same call fails again."""


class FileRefused(StorageError):
    """The file's state does not allow the operation (archived, encrypted with a lost key)."""


class UnusableName(StorageError):
    """A file that was stored by other means has a name that no path can address."""
