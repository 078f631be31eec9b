"""What follows one user's events: a bounded buffer, and the table where that overflows."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from common.database.errors import DatabaseUnavailable
from gateway.jobs.events.items import Item

_MAX_WAITING: Final = 256
"""Items, and bytes below, that wait for a slow follower before it reads the table instead."""

_MAX_WAITING_BYTES: Final = 131_072

_PAUSE_AFTER_ERROR: Final = 1.0


@dataclass(slots=True)
class Positions:
    """The ids of the last event and the last deletion that were read of a user."""

    event: int
    deletion: int

    def advance(self, item: Item) -> bool:
        """Whether the item is later than the position, which it then becomes."""
        if item.is_deletion:
            is_new = item.cursor > self.deletion
            self.deletion = max(item.cursor, self.deletion)
        else:
            is_new = item.cursor > self.event
            self.event = max(item.cursor, self.event)
        return is_new


ReadTable = Callable[[Positions], Awaitable[list[Item]]]
"""Reads the next items of the user after a position; none where there are none."""


class Follower:
    """Follows one user's events from a position on; `batches` yields each one once, in order.

    Its buffer is bounded. Where it overflows, and at the start, the events are read from the table.
    """

    __slots__ = (
        "_bytes",
        "_ended",
        "_is_behind",
        "_is_catching_up",
        "_positions",
        "_read",
        "_waiting",
        "_wanted",
        "_woken",
        "with_labels",
    )

    def __init__(
        self,
        positions: Positions,
        read: ReadTable,
        wanted: Callable[[Item], bool],
        *,
        with_labels: bool,
    ) -> None:
        self.with_labels = with_labels
        self._positions = positions
        self._read = read
        self._wanted = wanted
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._is_behind = True
        self._is_catching_up = False
        self._ended = False
        self._woken = asyncio.Event()

    def put(self, item: Item) -> None:
        if self._is_behind or self._ended:
            return
        if not self._wanted(item):
            if not (self._waiting or self._is_catching_up):
                self._positions.advance(item)  # the table need not be read from before it
            return
        self._waiting.append(item)
        self._bytes += len(item.frame)
        if len(self._waiting) > _MAX_WAITING or self._bytes > _MAX_WAITING_BYTES:
            self._fall_behind()
        self._woken.set()

    def end(self) -> None:
        """End `batches`, now."""
        self._ended = True
        self._woken.set()

    def _fall_behind(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._is_behind = True

    async def batches(self, heartbeat: float) -> AsyncGenerator[list[Item]]:
        """The wanted items, until `end`; an empty list after `heartbeat` seconds without any.

        Goes on where it was when the database was away.
        """
        due = time.monotonic() + heartbeat
        while not self._ended:
            if self._is_behind:
                self._is_behind, self._is_catching_up = False, True
            if self._is_catching_up:
                found = await self._read_on()
            elif not (found := self._take_waiting()):
                await self._wait(due - time.monotonic())
            if found or time.monotonic() >= due:
                yield found
                due = time.monotonic() + heartbeat

    async def _read_on(self) -> list[Item]:
        """The next wanted items of the table, until it holds nothing later.

        The buffer fills meanwhile: what is committed after the last read is put there.
        """
        try:
            page = await self._read(self._positions)
        except DatabaseUnavailable:
            self._fall_behind()
            await self._wait(_PAUSE_AFTER_ERROR)
            return []
        self._is_catching_up = bool(page)
        return [item for item in page if self._positions.advance(item) and self._wanted(item)]

    def _take_waiting(self) -> list[Item]:
        found = [item for item in self._waiting if self._positions.advance(item)]
        self._waiting.clear()
        self._bytes = 0
        return found

    async def _wait(self, seconds: float) -> None:
        """Wait for an item, for the end, or for so long."""
        self._woken.clear()
        if not self._ended:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
