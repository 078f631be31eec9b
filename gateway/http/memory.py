"""A budget of bytes for answers that are held in memory until their clients have taken them."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from gateway.http.limits import Caller, Overloaded

_LONGEST_WAIT: Final = 30.0
_RETRY_AFTER: Final = 2.0


class Held:
    """Bytes that one answer holds; `shrink` gives some of them back early."""

    def __init__(self, budget: "ByteBudget", caller: Caller, size: int) -> None:
        self._budget = budget
        self.caller = caller
        self.size = size

    def shrink(self, size: int) -> None:
        """Hold no more than `size` bytes from now on."""
        size = min(size, self.size)
        freed, self.size = self.size - size, size
        self._budget.give_back(self.caller, freed)


class ByteBudget:
    """At most `total` bytes at a time, and `per_caller` of them for one caller.

    First come, first served, but nobody waits behind a caller who has used up its own part. A
    single piece that is larger counts as that part, so that it passes, alone.
    """

    def __init__(self, total: int, *, per_caller: int, longest_wait: float = _LONGEST_WAIT) -> None:
        self._free = total
        self._per_caller = per_caller
        self._longest_wait = longest_wait
        self._held: Counter[Caller] = Counter()
        self._waiting: deque[tuple[Held, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, caller: Caller, size: int) -> AsyncIterator[Held]:
        """Hold `size` bytes. Raises `Overloaded` after too long a wait for them."""
        held = Held(self, caller, min(size, self._per_caller))
        await self._wait(held)
        try:
            yield held
        finally:
            held.shrink(0)

    def give_back(self, caller: Caller, size: int) -> None:
        self._free += size
        self._held[caller] -= size
        if not self._held[caller]:
            del self._held[caller]
        self._serve()

    async def _wait(self, held: Held) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((held, turn))
        self._serve()
        try:
            async with asyncio.timeout(self._longest_wait):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                held.shrink(0)
            else:
                self._waiting.remove((held, turn))
                self._serve()
            if isinstance(error, TimeoutError):
                raise Overloaded("memory for long answers", _RETRY_AFTER) from None
            raise

    def _serve(self) -> None:
        passed: deque[tuple[Held, asyncio.Future[None]]] = deque()
        while self._waiting:
            held, turn = self._waiting[0]
            if turn.cancelled() or self._held[held.caller] + held.size > self._per_caller:
                passed.append(self._waiting.popleft())
                continue
            if held.size > self._free:
                break
            self._waiting.popleft()
            self._free -= held.size
            self._held[held.caller] += held.size
            turn.set_result(None)
        self._waiting.extendleft(reversed(passed))
