"""Group commit for calls: while one batch is under way, the next one collects.

A single call runs at once, so nothing waits when the service is idle. Under load one round trip to
the database serves all calls that arrived during the one before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from common.telemetry.logs import get_logger

Item = TypeVar("Item")
Result = TypeVar("Result")

log = get_logger()


class Batcher(Generic[Item, Result]):
    """Runs `work` on batches of items; `await batcher(item)` returns that item's result.

    `work` gets at most `limit` items, in order of arrival, and returns one result per item, in
    that order. An exception that it *returns* is raised for its item alone, one that it *raises*
    reaches every caller of the batch. Up to `lanes` batches run at once. A cancelled caller does
    not cancel the batch, which others share; with `cancel_unwanted`, the last one of a batch does.
    After a batch a lane waits for `pause` seconds: worth
    it if a batch costs much and its items little. `when_idle` is called whenever nothing is under
    way or waiting any more.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        limit: int = 200,
        lanes: int = 1,
        pause: float = 0.0,
        cancel_unwanted: bool = False,
        when_idle: Callable[[], object] | None = None,
    ) -> None:
        self._work = work
        self._limit = limit
        self._pause = pause
        self._cancel_unwanted = cancel_unwanted
        self._when_idle = when_idle
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._lanes = self._free_lanes = lanes
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._free_lanes:
            self._start()
        return await future

    def _start(self) -> None:
        self._free_lanes -= 1
        task = asyncio.get_running_loop().create_task(self._drain())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                if self._cancel_unwanted:
                    await self._work_while_wanted(batch)
                else:
                    await self._work_on(batch)
                if self._pause:
                    await asyncio.sleep(self._pause)
        finally:
            # in the step in which nothing was waiting: an item that arrives before the task counts
            # as done must find the lane free, or it would wait for the next item
            self._free_lanes += 1
            if self._when_idle and self._free_lanes == self._lanes and not self._waiting:
                self._when_idle()

    async def _work_while_wanted(
        self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]
    ) -> None:
        batch = [(item, future) for item, future in batch if not future.done()]
        if not batch:
            return
        task, wanted = asyncio.current_task(), len(batch)

        def leave(future: asyncio.Future[Result]) -> None:
            nonlocal wanted
            wanted -= future.cancelled()
            if not wanted and task is not None:
                task.cancel()

        for _, future in batch:
            future.add_done_callback(leave)
        try:
            await self._work_on(batch)
        except asyncio.CancelledError:
            if wanted or task is None:
                raise
            task.uncancel()
        finally:
            task = None  # a caller that leaves from now on concerns no work

    async def _work_on(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._work([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(_copy_for_caller(error))
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def close(self) -> None:
        """Wait for the batches under way."""
        while self._running:
            await asyncio.gather(*self._running, return_exceptions=True)


def _copy_for_caller(error: BaseException) -> BaseException:
    """An exception for each caller: tracebacks grow on the object with each raise."""
    if not isinstance(error, Exception):
        return asyncio.CancelledError()
    try:
        copy = type(error)(*error.args)
    except Exception:  # noqa: BLE001 - constructors of any signature
        return error
    copy.__cause__ = error.__cause__ or error
    return copy
