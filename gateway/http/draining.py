"""Requests that are being answered: counted, and waited for before the process ends.

aiohttp's own shutdown waits for handlers, but drops whatever bytes still come on their connections:
an upload under way would wait for the rest of its body in vain. So it has to begin after them.
"""

import asyncio
import contextlib


class InFlight:
    """The requests of one process."""

    def __init__(self) -> None:
        self._begun = 0
        self._open: set[int] = set()
        self._one_ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self) -> int:
        """One more; returns its number, for `end`."""
        self._begun += 1
        self._open.add(self._begun)
        return self._begun

    def end(self, number: int) -> None:
        self._open.discard(number)
        self._one_ended.set()

    async def outlast(self, seconds: float) -> int:
        """Wait for those of this moment, up to `seconds`; returns how many are still open then."""
        present = set(self._open)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not present.isdisjoint(self._open):
                    self._one_ended.clear()
                    await self._one_ended.wait()
        return len(present & self._open)
