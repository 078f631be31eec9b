"""A group of tasks of which only so many run at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVarTuple

Arguments = TypeVarTuple("Arguments")


class BoundedTasks:
    """Like `asyncio.TaskGroup`, but bounded, and it raises one plain error: the first."""

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
