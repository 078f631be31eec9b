"""Wait for conditions, with background work."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def eventually(check: Callable[[], Awaitable[T] | T], *, within: float = 30.0) -> T:
    """Return the first true result of `check`. Raises `TimeoutError` after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            result = check()
            found = await result if inspect.isawaitable(result) else result
            if found:
                return found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def meanwhile(*work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Run coroutines until the block ends; raises if one of them has failed."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
