"""How late the event loop comes round to what is due: every request and delivery waits as long."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import Histogram

EVERY: Final = 0.5
"""Seconds between two measurements."""

LAG: Final = Histogram(
    "opencloud_loop_lag_seconds",
    "How late the event loop came round to a timer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


@asynccontextmanager
async def measure_loop_lag() -> AsyncIterator[None]:
    """Measure while the context is open."""
    timer = _PeriodicTimer()
    try:
        yield
    finally:
        timer.stop()


class _PeriodicTimer:
    """A timer at fixed times. Those that pass while the loop is blocked count as well: a stall
    weighs in the quantiles by its length, not as the one late call that it causes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # not the loop's own clock, which uvloop reads only once per iteration
        self._due = time.monotonic() + EVERY
        self._handle = self._loop.call_later(EVERY, self._measure)

    def _measure(self) -> None:
        now = time.monotonic()
        LAG.observe(max(0.0, now - self._due))
        self._due += EVERY
        while self._due <= now:
            LAG.observe(now - self._due)
            self._due += EVERY
        self._handle = self._loop.call_later(self._due - now, self._measure)

    def stop(self) -> None:
        self._handle.cancel()
