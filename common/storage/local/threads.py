"""Threads for calls that block on the disk, such that cancelling loses no descriptor.

A call in a thread cannot be stopped. So whoever waits for one and is cancelled first waits until
it has ended; what it opened can then be closed by the usual `finally`. Each call is short.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from common.storage.local.errors import translate

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class Threads:
    """A pool of threads whose `OSError`s arrive as `StorageError`s."""

    def __init__(self, size: int) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="storage")

    def submit(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        return self._executor.submit(call, *arguments)

    async def result(self, job: Future[T]) -> T:
        """What `job` returns; cancelled, it does not wait (see `outlast`)."""
        try:
            return await asyncio.wrap_future(job)
        except OSError as error:
            raise translate(error) from error

    async def run(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Call in a thread; whichever way this ends, the call is not running any more."""
        job = self.submit(call, *arguments)
        try:
            return await self.result(job)
        except asyncio.CancelledError:
            await outlast(job)
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._executor.shutdown)


async def outlast(job: Future[Any]) -> None:
    """Wait until `job` has ended, whatever it raises; being cancelled counts only afterwards."""
    waiter = asyncio.wrap_future(job)
    cancelled = None
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError as error:
            cancelled = error
    if not waiter.cancelled():
        waiter.exception()  # seen: otherwise asyncio would log it
    if cancelled is not None:
        raise cancelled
