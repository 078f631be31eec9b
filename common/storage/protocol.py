"""What every storage can do, whatever stands behind it."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from common.storage.paths import UserPath

BATCH: Final = 1_000
"""Entries that are read in one go, so that other work gets its turn."""

SMALL_FILE: Final = 64 << 10
"""Up to so many bytes are read or written whole: they cost less than the way to them."""


@dataclass(slots=True, unsafe_hash=True)  # frozen ones take thrice as long to make: listings matter
class Entry:
    """A file or a directory in a user's tree; never changed once made.

    `path` is relative to the tree; a directory's ends in a slash and its `size` is None. It never
    holds empty, `.` or `..` segments, but perhaps control characters. Names that are not UTF-8 are
    shown with U+FFFD, and under that name there is nothing.
    `size` is in bytes, `modified` in seconds since the epoch (None where it is not known),
    `etag` is a strong validator without quotes (None for directories).
    """

    path: str
    size: int | None = None
    modified: float | None = None
    etag: str | None = None

    @property
    def is_directory(self) -> bool:
        return self.size is None


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """A request that a client can send to the storage itself (`data`: form fields)."""

    method: str
    url: str
    headers: dict[str, str]
    data: dict[str, str]


class OpenFile(Protocol):
    """A file opened for reading: what it was when it was opened, whatever replaces it meanwhile."""

    entry: Entry

    def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Stream `length` bytes from `offset` in large pieces; constant memory.

        Raises `StorageUnavailable` if the storage cannot deliver all of them.
        """
        ...


class Storage(Protocol):
    """Users' trees. Every method is safe to cancel and may run concurrently with any other.

    All of them raise `StorageUnavailable` when the storage does not answer, and `InvalidPath` for
    a path that this storage cannot hold. Symbolic links are never followed and never listed.
    """

    async def ensure_user(self, user: str) -> None:
        """Create the user's tree with its predefined directories; cheap once that was done."""
        ...

    async def stat(self, path: UserPath) -> Entry:
        """Describe the file or directory at `path`. Raises `NotFound`.

        A directory goes first if `path` has a trailing slash, where both may share a name.
        """
        ...

    def walk(
        self, path: UserPath, *, recursive: bool = True, after: str = "", batch: int = BATCH
    ) -> AsyncGenerator[list[Entry], None]:
        """Entries below a directory, sorted by path, up to `batch` at a time (1 000 at most).

        Without `recursive` those directly in it; with `after` only those that sort after that
        path. Raises `NotFound` if there is no directory.
        """
        ...

    async def survey(
        self, inputs: Sequence[UserPath], places: Sequence[UserPath]
    ) -> tuple[list[list[Entry] | None], list[bool]]:
        """What a submission needs to know, in one round of work.

        For each of `inputs`: the file there, or all files below the directory there, sorted by
        path, or None. For each of `places`: whether a file is there, or at any depth below it.
        Raises `UnusableName` for a file among the inputs, put there by other means, that no path
        can address.
        """
        ...

    async def make_directory(self, path: UserPath) -> None:
        """Create a directory and its parents; idempotent. Raises `PathConflict`."""
        ...

    async def write(self, path: UserPath, chunks: AsyncIterator[bytes]) -> Entry:
        """Store a file, replacing one that is there; parents are created.

        Visible whole or not at all: if `chunks` raises, or the call is cancelled, nothing is left
        behind. Raises `PathConflict` (before more than a first piece of the file is read, where
        that can be known), `OutOfSpace`.
        """
        ...

    def open(self, path: UserPath) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file for reading. Raises `NotFound` when there is none (a directory, too)."""
        ...

    async def read_small(self, paths: Sequence[UserPath]) -> dict[UserPath, bytes]:
        """The bytes of those that are small files (`SMALL_FILE`), in one round of work."""
        ...

    async def rename(self, source: UserPath, target: UserPath, *, replace: bool = True) -> Entry:
        """Move a file or an empty directory; describes it at its new place.

        Parents of `target` are created, an existing target *file* is replaced; onto itself nothing
        changes. Refusals, checked in this order, leave nothing behind: `NotFound` (no source),
        `DirectoryNotEmpty` (the root always), `PredefinedDirectory`, `InvalidPath` (`target` is the
        root, lies outside the predefined directories, or inside `source`), `PathConflict` (a file
        as the target's parent, a directory at the target, a file at the target of a directory),
        `TargetExists` (with `replace=False` and a file at the target other than the source).
        """
        ...

    async def delete(self, path: UserPath) -> None:
        """Remove a file or a whole directory; nothing there is fine.

        The root and the predefined directories are emptied and recreated, never lost.
        """
        ...

    def uri(self, path: UserPath) -> str:
        """The storage URI by which workers find `path`, without a trailing slash."""
        ...

    async def presign_download(self, path: UserPath) -> PresignedRequest | None:
        """A time-limited request for the file's bytes; None where the API itself serves them.

        Does not look whether there is such a file.
        """
        ...

    async def presign_upload(self, directory: UserPath) -> PresignedRequest | None:
        """A time-limited form upload into `directory`; None where the API itself takes it.

        Raises `PathConflict` if the directory, or a parent of it, is a file.
        """
        ...

    async def sweep_staging(self) -> int:
        """Remove what uploads of killed processes have left behind; returns how many."""
        ...

    async def health(self) -> dict[str, Any]:
        """Facts for the readiness body, at least `{"ok": bool}`; never raises."""
        ...
