"""Bounds on the memory of a process: a thousand slow clients take no more than a few fast ones."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from common.storage.errors import StorageUnavailable, TooManyFiles
from common.storage.protocol import Entry

SMALLEST: Final = 1 << 16
LARGEST: Final = 1 << 20

_TOTAL: Final = 1 << 24

_VISITS_PER_FILE: Final = 4
_FEW_VISITS: Final = 1_000


class ChunkBudget:
    """Size of the chunks in which files are moved: large for few transfers, small for many."""

    def __init__(self, *, total: int = _TOTAL, largest: int = LARGEST) -> None:
        self._total = total
        self._largest = largest
        self._transfers = 0

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """Count one more transfer while the context lasts."""
        self._transfers += 1
        try:
            yield
        finally:
            self._transfers -= 1

    @property
    def size(self) -> int:
        """Bytes of the next chunk; it changes as transfers begin and end."""
        return max(SMALLEST, min(self._largest, self._total // max(1, self._transfers)))


class PartBudget:
    """Number of parts of S3 uploads that are in memory at a time.

    S3 takes no parts below 5 MiB, so a large upload holds some megabytes until they are sent,
    however slow its client is. Without a bound, a few dozen of them would fill a container.
    An upload that waits longer than `timeout` seconds for a part is refused.
    """

    def __init__(self, parts: int, *, timeout: float = 60.0) -> None:
        self._free = asyncio.Semaphore(parts)
        self._timeout = timeout

    @contextmanager
    def upload(self) -> Iterator["HeldParts"]:
        """The parts that one upload holds; the end of the context releases them."""
        held = HeldParts(self._free, self._timeout)
        try:
            yield held
        finally:
            while held.count:
                held.release()


class HeldParts:
    """What one upload holds of a `PartBudget`."""

    def __init__(self, free: asyncio.Semaphore, timeout: float) -> None:
        self._free = free
        self._timeout = timeout
        self.count = 0

    async def acquire(self) -> None:
        """Wait for one more part, first come, first served. Raises `StorageUnavailable`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable("too many uploads are under way") from None
        self.count += 1

    def release(self) -> None:
        """Release one part."""
        self.count -= 1
        self._free.release()


class FileCount:
    """The distinct files that a survey has found, `most` of them at most (None: any number).

    What is visited is bounded as well, at four times as many (or a thousand): inputs may lie inside
    each other, and directories may be empty.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._paths: set[str] = set()
        self._visited = 0

    def add(self, files: Sequence[Entry], visited: int) -> None:
        """Count `files`, found among so many visited entries. Raises `TooManyFiles`."""
        if self._most is None:
            return
        self._visited += visited
        self._paths.update(file.path for file in files)
        visits = max(_FEW_VISITS, self._most * _VISITS_PER_FILE)
        if len(self._paths) > self._most or self._visited > visits:
            raise TooManyFiles(f"there are more than {self._most} files")


class BoundedCache:
    """The names that were added last, at most `limit` of them."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._names: dict[str, None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        while len(self._names) >= self._limit:
            del self._names[next(iter(self._names))]
        self._names[name] = None
