"""Calls that read directories, which run in threads one at a time, users in turn.

Such a call makes very many short system calls. A thread releases the interpreter's lock at each of
them and has to get it back; several such threads compete for it, and each takes several times as
long as alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, TypeVarTuple

from common.runtime.fair_queue import FairQueue
from common.storage.local.threads import Threads

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_LONGEST: Final = 0.1
"""Seconds after which the next call runs beside one that waits for a slow disk: they can wait
together."""


class _Turn:
    """A call's turn; `user` is whose tree it reads."""

    def __init__(self, user: str) -> None:
        self.user = user


class Turns:
    """Runs calls in `threads`, one at a time as long as each is quick."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._current: _Turn | None = None
        self._queue: FairQueue[str, _Turn] = FairQueue(lambda _: True)

    async def run(self, user: str, call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call in a thread, as `Threads.run` does, once it is the user's turn."""
        async with self._turn(user):
            return await self._threads.run(call, *arguments)

    async def close(self) -> None:
        await self._threads.close()

    @asynccontextmanager
    async def _turn(self, user: str) -> AsyncIterator[None]:
        turn = _Turn(user)
        try:
            if self._current is None:
                self._current = turn
            else:
                await self._queue.push(user, turn)
            timer = asyncio.get_running_loop().call_later(_LONGEST, self._end, turn)
            try:
                yield
            finally:
                timer.cancel()
        finally:
            self._queue.remove(user, turn)
            self._end(turn)

    def _end(self, turn: _Turn) -> None:
        """Let the next one begin, if this is the one that it waits for."""
        if self._current is not turn:
            return
        self._current = None
        while self._current is None and self._queue.is_ready:
            following, granted = self._queue.pop()
            self._queue.refresh(following.user)
            if not granted.done():  # else cancelled just now
                self._current = following
                granted.set_result(True)
