"""Memory for the parts of uploads, which all uploads of a process share.

S3 takes parts of 5 MiB at the least, so each large upload has to hold some megabytes until they are
sent, however slow its client is. Without a bound, a few dozen of them would fill a container.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from common.storage.errors import StorageUnavailable


class Room:
    """Room for so many parts; whoever waits longer than `patience` seconds for it is refused."""

    def __init__(self, parts: int, *, patience: float = 60.0) -> None:
        self._free = asyncio.Semaphore(parts)
        self._patience = patience

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one upload takes of it; all of that is given back at the end."""
        share = Share(self._free, self._patience)
        try:
            yield share
        finally:
            share.give_all()


class Share:
    """Room that one upload has."""

    def __init__(self, free: asyncio.Semaphore, patience: float) -> None:
        self._free = free
        self._patience = patience
        self._held = 0

    async def take(self) -> None:
        """Room for one more part, in the order of asking. Raises `StorageUnavailable`."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise StorageUnavailable("too many uploads are under way") from None
        self._held += 1

    def give(self) -> None:
        """Give the room of one part back."""
        self._held -= 1
        self._free.release()

    def give_all(self) -> None:
        while self._held:
            self.give()
