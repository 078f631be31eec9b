"""Tasks: many side by side of which one that fails stops no other, and the end of one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, TypeVarTuple

from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import get_logger

log = get_logger()


class OfJob(Protocol):
    """Something that belongs to a job, which the log names."""

    @property
    def job_id(self) -> int: ...


Item = TypeVar("Item", bound=OfJob)
Result = TypeVar("Result")


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, at_once: int
) -> list[Result]:
    """Do `work` for every item, up to `at_once` side by side; returns what came of those that went
    well, in their order, once all have ended.

    A fault with one item is logged and stops no other. Where the database is away nothing more is
    begun, and `DatabaseUnavailable` is raised at the end.
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

    # `one` raises nothing but its cancellation, so none is left running
    await asyncio.gather(*(one(place, item) for place, item in enumerate(items)))
    if away:
        raise away[0]
    return [results[place] for place in sorted(results)]


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; raises what it failed with.

    Unlike `await task` with its `CancelledError` suppressed, this is over when its caller is
    cancelled.
    """
    task.cancel()
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
