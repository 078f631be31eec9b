"""Tasks: over many items with bounded concurrency, isolating failures; or in the background."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, TypeVarTuple

from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import get_logger

log = get_logger()


class OfJob(Protocol):
    """An item of a job, whose id is logged; None: it is about several."""

    @property
    def job_id(self) -> int | None: ...


Item = TypeVar("Item", bound=OfJob)
Result = TypeVar("Result")


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, at_once: int
) -> list[Result]:
    """Run `work` for every item, up to `at_once` concurrently; returns the results of those that
    succeeded, in order, once all have ended.

    An item's exception is logged and stops no other item. When the database is away no further
    item is started, and `DatabaseUnavailable` is raised at the end.
    """
    turn = asyncio.Semaphore(at_once)
    results: dict[int, Result] = {}
    away: list[DatabaseUnavailable] = []

    async def one(place: int, item: Item) -> None:
        async with turn:
            if away:
                return
            try:
                results[place] = await work(item)
            except DatabaseUnavailable as error:
                away.append(error)
            except Exception:
                log.exception("item.failed", job_id=item.job_id)

    # `one` raises nothing but its cancellation, so no task is left running
    await asyncio.gather(*(one(place, item) for place, item in enumerate(items)))
    if away:
        raise away[0]
    return [results[place] for place in sorted(results)]


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run `work` as a task, which is cancelled at the exit; raises the exception that ended it."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        task.cancel()
        # unlike `await task` with its cancellation suppressed, this can itself be cancelled
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


Arguments = TypeVarTuple("Arguments")


class BoundedTasks:
    """An `asyncio.TaskGroup` of which at most `limit` tasks run at a time.

    If tasks fail, it raises the first error itself instead of an `ExceptionGroup`.
    """

    def __init__(self, limit: int) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def start(
        self, call: Callable[[*Arguments], Awaitable[Any]], *arguments: *Arguments
    ) -> None:
        """Start a task as soon as a slot is free."""
        await self._slots.acquire()
        self._group.create_task(self._run(call, *arguments))

    async def _run(
        self, call: Callable[[*Arguments], Awaitable[Any]], *arguments: *Arguments
    ) -> None:
        try:
            await call(*arguments)
        finally:
            self._slots.release()
