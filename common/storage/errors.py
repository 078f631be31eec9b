"""What can go wrong in a user's tree. None of these knows HTTP."""


class StorageError(Exception):
    """Base of all refusals below; `str()` is a sentence fit for the user."""


class InvalidPath(StorageError):
    """The path holds `.`/`..`, control characters, or names that no storage can hold."""


class NotFound(StorageError):
    """Nothing is stored at the path (or not of the kind that was asked for)."""


class PathConflict(StorageError):
    """A file stands where a directory is needed, or the reverse."""


class DirectoryNotEmpty(StorageError):
    """A directory that holds something, as the root always does, cannot be renamed."""


class PredefinedDirectory(StorageError):
    """One of the five predefined directories cannot be renamed."""


class TargetExists(StorageError):
    """The target of a rename that must not replace anything is taken."""


class OutOfSpace(StorageError):
    """The storage has no room for the bytes (disk full, quota exceeded)."""


class StorageUnavailable(StorageError):
    """The storage did not answer; the same call may succeed later."""


class UnusableName(StorageError):
    """Something that was put there by other means has a name that no path can address."""
