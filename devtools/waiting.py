"""Wait for conditions."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(check: Callable[[], Awaitable[T] | T], *, within: float = 15.0) -> T:
    """Return the first true result of `check`. Raises `TimeoutError` after `within` seconds."""
    async with asyncio.timeout(within):
        while True:
            result = check()
            found = await result if inspect.isawaitable(result) else result
            if found:
                return found
            await asyncio.sleep(0.02)
