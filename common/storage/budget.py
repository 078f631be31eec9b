"""Bounds on the memory of a process: a thousand slow clients take no more than a few fast ones."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from common.runtime.fair_queue import FairQueue
from common.storage.errors import ShareUsedUp, StorageUnavailable, TooManyFiles
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
    """Number of parts of S3 uploads that are in memory at a time, in all and of one user.

    S3 takes no parts below 5 MiB, so a large upload holds some megabytes until they are sent,
    however slow its client is. Without a bound, a few dozen of them would fill a container; without
    a user's own, one user's trickling uploads would keep all others waiting. Users take turns.
    """

    def __init__(self, parts: int, *, per_user: int = 0, timeout: float = 60.0) -> None:
        """`per_user` 0: as many as there are; an upload waits at most `timeout` seconds for one."""
        self._free = parts
        self._per_user = per_user or parts
        self._timeout = timeout
        self._held: dict[str, int] = {}
        self._queue: FairQueue[str, HeldParts] = FairQueue(self._may_hold_more)

    @contextmanager
    def upload(self, user: str) -> Iterator["HeldParts"]:
        """The parts that one upload holds; the end of the context releases them."""
        held = HeldParts(self, user)
        try:
            yield held
        finally:
            while held.count:
                held.release()

    def _may_hold_more(self, user: str) -> bool:
        return self._held.get(user, 0) < self._per_user

    async def acquire(self, held: "HeldParts") -> None:
        """Give the upload one more part. Raises `ShareUsedUp` and `StorageUnavailable`."""
        user = held.user
        if self._free and self._may_hold_more(user):
            self._grant(held)
            return
        turn = self._queue.push(user, held)
        try:
            async with asyncio.timeout(self._timeout):
                await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled():
                return  # granted in that moment
            if self._may_hold_more(user):
                raise StorageUnavailable("too many uploads are under way") from None
            limit = f"{self._per_user} parts of large uploads at once"
            raise ShareUsedUp(f"Limit exceeded: {limit}") from None
        finally:
            self._queue.remove(user, held)

    def release(self, held: "HeldParts") -> None:
        """Take one part from the upload, for the next in turn."""
        held.count -= 1
        self._free += 1
        left = self._held.pop(held.user) - 1
        if left:
            self._held[held.user] = left
        self._queue.refresh(held.user)
        while self._free and self._queue.is_ready:
            following, turn = self._queue.pop()
            if turn.done():  # cancelled just now
                self._queue.refresh(following.user)
                continue
            self._grant(following)
            turn.set_result(True)

    def _grant(self, held: "HeldParts") -> None:
        held.count += 1
        self._free -= 1
        self._held[held.user] = self._held.get(held.user, 0) + 1
        self._queue.refresh(held.user)


class HeldParts:
    """What one upload holds of a `PartBudget`."""

    def __init__(self, budget: PartBudget, user: str) -> None:
        self._budget = budget
        self.user = user
        self.count = 0

    async def acquire(self) -> None:
        """Wait for one more part. Raises `ShareUsedUp` and `StorageUnavailable`."""
        await self._budget.acquire(self)

    def release(self) -> None:
        """Release one part."""
        self._budget.release(self)


class Reading(Protocol):
    """An open response of a storage, of which a client takes the next piece when it can."""

    def close(self) -> None: ...


class ReadBudget:
    """Number of responses of a storage that are open at a time.

    One whose client stands still is closed for others, that which has stood still longest first;
    its reader opens another one for the rest.
    """

    def __init__(self, responses: int) -> None:
        self._free = asyncio.Semaphore(responses)
        self._waiting = 0
        self._standing: dict[Reading, None] = {}

    async def acquire(self) -> None:
        """Wait until another response may be open; `release` has to follow its end."""
        if self._free.locked():
            self._close_one()
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    def release(self) -> None:
        self._free.release()

    def stand(self, reading: Reading) -> None:
        """The client has not taken the latest piece yet: the response may be closed."""
        self._standing[reading] = None
        if self._waiting:
            self._close_one()

    def move(self, reading: Reading) -> None:
        """The client goes on."""
        self._standing.pop(reading, None)

    def _close_one(self) -> None:
        if self._standing:
            longest = next(iter(self._standing))
            del self._standing[longest]
            longest.close()
            self.release()


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
