"""Repeat an operation until it succeeds: exponential backoff, full jitter, a time limit."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

Result = TypeVar("Result")
Errors = type[Exception] | tuple[type[Exception], ...]

_LARGEST_EXPONENT: Final = 30


def full_jitter(attempt: int, *, first: float, cap: float) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (counted from 1).

    Uniform between 0 and `first` doubled with each failure, at most `cap`: clients that failed
    together do not return together.
    """
    ceiling = min(cap, first * 2 ** min(max(attempt, 1) - 1, _LARGEST_EXPONENT))
    return random.uniform(0.0, ceiling)  # noqa: S311 - spreads load, guards nothing


async def retry(
    operation: Callable[[], Awaitable[Result]],
    *,
    on: Errors,
    unless: Errors = (),
    first: float,
    cap: float,
    least: float = 0.05,
    within: float = float("inf"),
    on_retry: Callable[[Exception], object] | None = None,
) -> Result:
    """Call `operation` until it succeeds; returns its result.

    Errors of the kinds `on`, but not those of `unless`, lead to another attempt after `least`
    seconds plus jitter between 0 and `first` doubled up to `cap`; `on_retry` gets each of them,
    for the log. Attempts stop `within` seconds from now, the last one at that moment, and its
    error is raised. Any other error is raised at once, and so is a cancellation.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + within
    failures = 0
    while True:
        try:
            return await operation()
        except unless:
            raise
        except on as error:
            left = deadline - clock()
            if left <= 0:
                raise
            failures += 1
            if on_retry is not None:
                on_retry(error)
        pause = least + full_jitter(failures, first=first, cap=cap)
        await asyncio.sleep(min(pause, left))
