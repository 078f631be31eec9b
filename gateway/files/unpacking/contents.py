"""What comes out of one archive: judged by the rules of upload paths, counted, in small steps.

Blocking.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from sys import getsizeof
from typing import Final

from common.storage.errors import InvalidPath
from common.storage.paths import UserPath
from common.storage.protocol import SMALL_FILE, SmallFile
from gateway.files.unpacking.members import PIECE, Member, refused
from gateway.http.errors import TooLarge

_MEMBERS_PER_STEP: Final = 128

_PATHS: Final = 32 << 20
"""Bytes of memory that the paths of any archive may take."""

_PER_PATH: Final = 640
"""Those that they may take for each file that is allowed, if that is more."""

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """What may come out of one archive, whatever it claims; 0 means no limit.

    `files` counts directories as well, those that only paths name included.
    """

    files: int
    bytes: int
    bytes_per_file: int


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file that comes in pieces, which are to be read before the next step."""

    path: UserPath
    pieces: Iterator[bytes]


Step = list[SmallFile] | LargeFile


class Contents:
    """The files and directories of an archive that is to be unpacked into `directory`."""

    def __init__(self, directory: UserPath, limits: UnpackLimits) -> None:
        self._base = directory
        self._limits = limits
        self._bytes = 0
        self._held = 0
        self._files: set[Parts] = set()
        self._directories: dict[Parts, Parts] = {directory.parts: directory.parts}

    def steps(self, members: Iterator[Member]) -> Iterator[Step]:
        """The files, many small ones in one step. Raises `Invalid` and `TooLarge`."""
        small: list[SmallFile] = []
        held = 0
        for number, member in enumerate(members, 1):
            path = self._add(member, number)
            if path is not None:
                pieces = self._counted(member)
                content = _beginning(pieces)
                if len(content) > SMALL_FILE:
                    yield small
                    small, held = [], 0
                    yield LargeFile(path, chain([content], pieces))
                    continue
                small.append(SmallFile(path, content))
                held += len(content)
            if held >= PIECE or number % _MEMBERS_PER_STEP == 0:
                yield small
                small, held = [], 0
        yield small

    def _counted(self, member: Member) -> Iterator[bytes]:
        """The content of a file, as long as it keeps to the limits."""
        self._check_size(0, member.size or 0)
        size = 0
        for piece in member.content:
            self._check_size(size, len(piece))
            size += len(piece)
            self._bytes += len(piece)
            yield piece

    def _check_size(self, size: int, more: int) -> None:
        limits = self._limits
        if limits.bytes_per_file and size + more > limits.bytes_per_file:
            raise TooLarge(f"A file may have at most {limits.bytes_per_file} bytes")
        if limits.bytes and self._bytes + more > limits.bytes:
            raise TooLarge(f"The files of an archive may have at most {limits.bytes} bytes in all")

    def _add(self, member: Member, number: int) -> UserPath | None:
        """The place of a file; None for a directory. Raises `Invalid` and `TooLarge`."""
        name = member.name
        self._check_count(number)
        path = self._parse(name, member.is_directory)
        if member.is_directory:
            if member.size:
                raise refused(name, "a directory has no content")
            self._enter(path.parts, name)
            return None
        parts = (*self._enter(path.parts[:-1], name), path.name)
        if parts in self._files:
            raise refused(name, "it is in the archive twice")
        if parts in self._directories:
            raise refused(name, "it is a directory of the archive as well")
        self._files.add(parts)
        self._check_held(parts)
        return UserPath(path.user, parts)

    def _parse(self, name: str, is_directory: bool) -> UserPath:
        if name.startswith("/"):
            raise refused(name, "the path must be relative")
        relative = name
        while relative.startswith("./"):  # as `tar c .` writes them
            relative = relative[2:].lstrip("/")
        if is_directory and relative in {"", "."}:
            return self._base
        if not relative:
            raise refused(name, "a name must not be empty")
        # a client on Windows that gets the file would take a backslash for a separator
        if ".." in relative.replace("\\", "/").split("/"):
            raise refused(name, "a name must not be '.' or '..'")
        try:
            return UserPath.parse(self._base.user, f"{'/'.join(self._base.parts)}/{relative}")
        except InvalidPath as error:
            raise refused(name, error) from error

    def _enter(self, parts: Parts, name: str) -> Parts:
        """Count a directory and those above it; returns its parts, in memory only once."""
        known = self._directories.get(parts)
        if known is not None:
            return known
        above = self._enter(parts[:-1], name)
        if parts in self._files:
            raise refused(name, "it is, or lies below, a file of the archive")
        known = (*above, parts[-1])
        self._directories[known] = known
        self._check_held(known)
        return known

    def _check_held(self, parts: Parts) -> None:
        """One more path is in memory, where a deep one takes some kilobytes."""
        self._check_count(len(self._files) + len(self._directories) - 1)
        self._held += getsizeof(parts) + getsizeof(parts[-1])
        if self._limits.files and self._held > max(_PATHS, self._limits.files * _PER_PATH):
            raise TooLarge("The paths in the archive are too long, for so many of them")

    def _check_count(self, count: int) -> None:
        most = self._limits.files
        if most and count > most:
            raise TooLarge(f"An archive may hold at most {most} files and directories")

    def empty_directories(self) -> list[UserPath]:
        """The directories in which nothing else is, of those that have come so far."""
        occupied = {parts[:-1] for parts in chain(self._files, self._directories)}
        empty = (parts for parts in self._directories if parts not in occupied)
        return [UserPath(self._base.user, parts, slash=True) for parts in empty]


def _beginning(pieces: Iterator[bytes]) -> bytes:
    """All of a small file, else a little more than that."""
    content = b""
    for piece in pieces:
        content = content + piece if content else piece
        if len(content) > SMALL_FILE:
            break
    return content
