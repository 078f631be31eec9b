"""The interface of every storage, and the values that it exchanges.

The interface stays small: what its methods can be combined to belongs to callers. A digest is
computed over the chunks that are passed to `write` (`gateway.files.digests`); a quota counts what
`write`, `rename` and `delete` report, and what `sizes` finds (see `common.usage`).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from common.storage.paths import UserPath
from common.storage.resumable import Appender, Known, Staged, none_known

BATCH: Final = 1_000
"""Most entries that are read in one step; between steps, other work runs."""

SMALL_FILE: Final = 64 << 10
"""Bytes up to which a file is read or written in one step: that is cheaper than more steps."""

Chunk = bytes | bytearray
"""A part of a file's content; it must not change once it was passed on."""

LINK_SECONDS: Final = 600
"""Seconds until a presigned request expires."""


@dataclass(slots=True, unsafe_hash=True)  # a frozen one takes three times as long to create
class Entry:
    """A file or a directory in a user's tree; immutable by convention.

    `path` is relative to the tree; a directory's ends in a slash and its `size` is None. It never
    holds empty, `.` or `..` segments, but may hold control characters. Bytes of a name that are not
    UTF-8 appear as U+FFFD, and no path addresses such an entry.
    `size` is in bytes, `modified` in seconds since the epoch (None if unknown), `etag` is a strong
    validator without quotes (None for directories).

    Of a file that was just stored or moved: `replaced` is the size of the file in whose place it
    was put, `moved_from` the ETag that it had before it was moved, and `is_distinct` says that
    whatever happens to it from now on changes its ETag.
    """

    path: str
    size: int | None = None
    modified: float | None = None
    etag: str | None = None
    replaced: int = field(default=0, compare=False)
    moved_from: str | None = field(default=None, compare=False)
    is_distinct: bool = field(default=False, compare=False)

    @property
    def is_directory(self) -> bool:
        return self.size is None


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that a client can send as it is (`data`: form fields)."""

    method: str
    url: str
    headers: dict[str, str]
    data: dict[str, str]


_MOST_BLOCKS: Final = 1_000  # below IOV_MAX


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of `size` bytes, the last one shorter, each after `room` bytes that are left free."""

    size: int
    room: int

    def places(self, length: int) -> tuple[bytearray, list[memoryview]]:
        """A buffer for `length` bytes of content, and its blocks without their rooms."""
        buffer = bytearray(length + self.room * -(-length // self.size))
        view, stride = memoryview(buffer), self.room + self.size
        starts = range(self.room, len(buffer), stride)
        return buffer, [view[start : start + self.size] for start in starts]

    def most(self, size: int) -> int:
        """The content of a chunk of about `size` bytes: whole blocks, at least one, and as many as
        one system call reads."""
        return self.size * max(1, min(_MOST_BLOCKS, size // (self.room + self.size)))


class OpenFile(Protocol):
    """A file that was opened for reading: that version, even after it is replaced."""

    entry: Entry

    def read(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Stream `length` bytes from `offset` in large chunks; constant memory.

        Raises `StorageUnavailable` if the storage cannot deliver all of them, `AccessRefused` and
        `FileRefused` before the first.
        """

    def read_blocks(self, blocks: Blocks) -> AsyncGenerator[bytearray, None]:
        """Stream the whole file in large chunks of whole blocks, like `read`.

        Saves the copy that framing the blocks would take.
        """


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A file of up to `SMALL_FILE` bytes."""

    path: UserPath
    content: bytes


class Bundle(Protocol):
    """Files of one user that appear together; out of sight until they are placed.

    For one task at a time. No path may be named twice, or lie below another one.
    """

    async def add(self, files: Sequence[SmallFile]) -> None:
        """Stage files, in few steps. Raises as `Storage.write` does, `PathConflict` not always."""

    async def write(self, path: UserPath, chunks: AsyncIterator[bytes]) -> None:
        """Stage one file. Raises as `Storage.write` does."""

    def place(self, directories: Sequence[UserPath]) -> AsyncGenerator[list[Entry], None]:
        """Move all files to their places, where files are replaced, and create `directories`.

        Yields the files' entries, up to `BATCH` at a time, in the order in which they came. Raises
        `PathConflict`, `OutOfSpace`, and `StorageUnavailable` if what was staged is gone.
        """


class Storage(Protocol):
    """Users' trees. Every method is safe to cancel and may run concurrently with any other.

    All methods raise `StorageUnavailable` if the storage does not respond, `AccessRefused` or
    `FileRefused` if it refuses for good, and `InvalidPath` for a path that it cannot hold. Symbolic
    links are neither followed nor listed.
    """

    async def ensure_user(self, user: str) -> None:
        """Create the user's tree with its predefined directories; repeated calls are cheap."""

    async def stat(self, path: UserPath) -> Entry:
        """The file or directory at `path`. Raises `NotFound`.

        On a storage where both can have the same name, a trailing slash selects the directory.
        """

    def walk(
        self, path: UserPath, *, recursive: bool = True, after: str = "", batch: int = BATCH
    ) -> AsyncGenerator[list[Entry], None]:
        """Entries below a directory, sorted by path, up to `batch` (at most 1 000) at a time.

        Without `recursive`, only those directly in it; with `after`, only those that sort after
        that path. Raises `NotFound` if there is no directory.
        """

    async def survey(
        self, inputs: Sequence[UserPath], places: Sequence[UserPath], *, most: int | None = None
    ) -> tuple[list[list[Entry] | None], list[bool]]:
        """Everything that a submission needs to know, in one step.

        For each of `inputs`: the file there, or all files below the directory there, sorted by
        path, or None. For each of `places`: whether there is a file, or a directory that holds
        files at any depth. Raises `UnusableName` for a file among the inputs that was stored by
        other means and that no path can address, and `TooManyFiles` as soon as the inputs hold more
        than `most` files (see `common.storage.budget.FileCount`).
        """

    async def make_directory(self, path: UserPath) -> None:
        """Create a directory and its parents; idempotent. Raises `PathConflict`."""

    async def write(self, path: UserPath, chunks: AsyncIterator[Chunk]) -> Entry:
        """Store a file and create its parents; an existing file is replaced.

        The file becomes visible as a whole or not at all: if `chunks` raises or the call is
        cancelled, nothing is left behind. Raises `PathConflict` (after the first chunk at the
        latest, unless the conflict arises later) and `OutOfSpace`.
        """

    async def stage(self, path: UserPath, length: int) -> Staged:
        """Begin a file that arrives in portions (see `common.storage.resumable`).

        Raises `PathConflict`, as `write` does, and `OutOfSpace` for one that is larger than any.
        """

    def append(self, staged: Staged, offset: int) -> AbstractAsyncContextManager[Appender]:
        """Go on with a staged file from `offset`, which was safe before.

        This, or the first call of the appender, raises `NotFound` if it is not there any more,
        `StagedBytesLost` if bytes before `offset` are not, and `StagedFileBusy` where the storage
        notices another process that appends.
        """

    async def place(self, staged: Staged) -> Entry:
        """Move a staged file, all of which is safe, to its place, where a file is replaced.

        Raises `PathConflict`, after which it can be tried again; `NotFound` if the file is not
        there any more, which is so once it was placed; `StagedBytesLost`.
        """

    async def abandon(self, staged: Staged) -> None:
        """Remove a staged file; idempotent."""

    def bundle(self, user: str) -> AbstractAsyncContextManager[Bundle]:
        """A bundle; unless it was placed, the end of the context leaves nothing of it.

        That includes a `place` that fails half-way: what it had placed or made is removed, and what
        it had replaced is put back, on S3 as far as it answers and without the files replaced last.
        """

    def open(self, path: UserPath) -> AbstractAsyncContextManager[OpenFile]:
        """Open a file for reading. Raises `NotFound`, also for a directory."""

    async def stated_sha256(self, path: UserPath, etag: str) -> str | None:
        """The SHA-256 of this version of a file, in hexadecimal, if the storage itself has it."""

    async def read_small(self, paths: Sequence[UserPath]) -> dict[UserPath, bytes]:
        """The content of those of `paths` that are files of up to `SMALL_FILE`, in one step."""

    async def rename(self, source: UserPath, target: UserPath, *, replace: bool = True) -> Entry:
        """Move a file or an empty directory; returns its entry at the new path.

        Parents of `target` are created, an existing *file* there is replaced; renaming onto itself
        changes nothing. A refused rename leaves nothing behind. Refusals in the order of their
        checks: `NotFound` (no source), `DirectoryNotEmpty` (always for the root),
        `PredefinedDirectory`, `InvalidPath` (`target` is the root, outside of the predefined
        directories, or inside `source`), `PathConflict` (a file as the target's parent, a directory
        at the target, a file at the target of a directory), `TargetExists` (a file at the target
        other than the source, with `replace=False`).
        """

    async def delete(self, path: UserPath) -> int:
        """Remove a file or a directory with all its content; idempotent.

        Returns the size of what was removed. The root and the predefined directories are emptied,
        never removed.
        """

    def sizes(self, user: str) -> AsyncGenerator[tuple[int, int], None]:
        """Number and total size of what a user's tree holds, up to `BATCH` names at a time.

        Counts files that no path can address as well.
        """

    def uri(self, path: UserPath) -> str:
        """The storage URI by which workers find `path`, without a trailing slash."""

    async def presign_download(self, path: UserPath) -> PreparedRequest | None:
        """A time-limited request for a file's content; None if only this API serves it.

        Does not check that the file exists.
        """

    async def presign_upload(
        self, directory: UserPath, *, most: int | None = None, sha256: str | None = None
    ) -> PreparedRequest | None:
        """A time-limited form upload into `directory`; None if only this API accepts it.

        `most`: bytes that the file may have; None: as many as the storage takes. `sha256`: of the
        only file that it may be, in hexadecimal; None: any.

        Raises `PathConflict` if the directory or one of its parents is a file.
        """

    async def free_bytes(self) -> int | None:
        """Space that is left for files; None if unknown or unlimited. Never raises."""

    async def sweep_staging(self, known: Known = none_known) -> int:
        """Remove what uploads of killed processes left behind; returns the number of removals.

        Staged files that are old are passed to `known`, and stay if they are.
        """

    async def has_tree(self, user: str) -> bool:
        """Whether anything is stored for `user`; creates nothing."""

    async def probe(self, *, write: bool) -> None:
        """Try the storage out; with `write`, a probe is stored, read and deleted in any case.

        Raises `StorageUnusable` where only an operator can help, another `StorageError` where time
        may; the sentence is for operators.
        """

    async def health(self) -> dict[str, Any]:
        """Facts for the readiness response, at least `{"ok": bool}`; never raises."""
