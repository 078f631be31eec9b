"""Tasks: many side by side of which one that fails stops no other, and the end of one."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar

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
