"""Blocking iterators in threads, over bytes that the event loop receives."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Final, Self, TypeVar

from common.storage.protocol import Chunk

T = TypeVar("T")

_TURN: Final = threading.Lock()
"""Held by the one thread that computes: several, each in need of the interpreter, would make the
event loop wait for each of them."""


class Source:
    """What an asynchronous iterator yields, for a thread, which waits for each piece."""

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        _TURN.release()
        try:
            coming: Future[Chunk] = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            chunk = coming.result()
        finally:
            _TURN.acquire()
        if not chunk:
            raise StopIteration
        return bytes(chunk)

    async def _next(self) -> Chunk:
        if self._is_closed:
            return b""
        self._task = asyncio.current_task()
        try:
            return await anext(self._chunks, b"")
        finally:
            self._task = None

    def close(self) -> None:
        """End the wait of the thread, and give it nothing any more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()


async def advance(executor: Executor, iterator: Iterator[T], source: Source) -> T | None:
    """The iterator's next item, made in a thread; None at its end.

    If this is cancelled, it closes the iterator's source, and waits until the thread has noticed.
    """
    step = asyncio.wrap_future(executor.submit(_next, iterator))
    try:
        await asyncio.wait([step])
    except asyncio.CancelledError:
        source.close()
        await asyncio.wait([step])
        step.exception()  # retrieved: otherwise asyncio would log it
        raise
    return step.result()


def _next(iterator: Iterator[T]) -> T | None:
    with _TURN:
        return next(iterator, None)
