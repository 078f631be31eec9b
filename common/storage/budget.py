"""Bounds on the memory of a process: a thousand slow clients take no more than a few fast ones."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from common.storage.errors import StorageUnavailable

SMALLEST: Final = 1 << 16
LARGEST: Final = 1 << 20

_TOTAL: Final = 1 << 24


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
            held.release_all()


class HeldParts:
    """What one upload holds of a `PartBudget`."""

    def __init__(self, free: asyncio.Semaphore, timeout: float) -> None:
        self._free = free
        self._timeout = timeout
        self._count = 0

    async def acquire(self) -> None:
        """Wait for one more part, first come, first served. Raises `StorageUnavailable`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable("too many uploads are under way") from None
        self._count += 1

    def release(self) -> None:
        """Release one part."""
        self._count -= 1
        self._free.release()

    def release_all(self) -> None:
        while self._count:
            self.release()


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
