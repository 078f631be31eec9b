"""Requests in flight: counted, and waited for before the process ends.

aiohttp's own shutdown waits for handlers, but drops the bytes that still arrive on their
connections: an upload would wait in vain for the rest of its body. So the drain has to end first.
"""

import asyncio
import contextlib
import time


class InFlight:
    """The requests in flight in one process."""

    def __init__(self) -> None:
        self._begun = 0
        self._open: set[int] = set()
        self._one_ended: asyncio.Event | None = None
        self._last_end = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def begin(self) -> int:
        """Count one more; returns its number, for `end`."""
        self._begun += 1
        self._open.add(self._begun)
        return self._begun

    def end(self, number: int) -> None:
        self._open.discard(number)
        self._last_end = time.monotonic()
        if self._one_ended is not None:
            self._one_ended.set()

    async def outlast(self, seconds: float) -> int:
        """Wait up to `seconds` for the requests that are open now; returns how many remain."""
        present = set(self._open)
        self._one_ended = asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not present.isdisjoint(self._open):
                    self._one_ended.clear()
                    await self._one_ended.wait()
        return len(present & self._open)

    async def linger(self, quiet: float, at_most: float) -> None:
        """Wait until no request has ended for `quiet` seconds, and `at_most` so long in all.

        The head of a long answer was sent before the drain, and so does not close its connection:
        its client may have the next request on the way.
        """
        give_up = time.monotonic() + at_most
        while (due := min(self._last_end + quiet, give_up) - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(due)  # no event: each end only moves the time
