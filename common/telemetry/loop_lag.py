"""How late the event loop comes round to what is due: every request and delivery waits as long."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from prometheus_client import Histogram

EVERY: Final = 0.5
"""Seconds between two looks."""

LAG: Final = Histogram(
    "opencloud_loop_lag_seconds",
    "How late the event loop came round to a timer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


async def measure_loop_lag(_: web.Application) -> AsyncIterator[None]:
    """A `cleanup_ctx` that looks while the application runs."""
    metronome = _Metronome()
    yield
    metronome.stop()


class _Metronome:
    """A timer at fixed times. Those that it misses while the loop is blocked count as well, so
    that a stall weighs in the quantiles by its length, not as the one late call that it causes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # not the loop's own clock, which uvloop reads only once a turn
        self._due = time.monotonic() + EVERY
        self._timer = self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        LAG.observe(max(0.0, now - self._due))
        self._due += EVERY
        while self._due <= now:
            LAG.observe(now - self._due)
            self._due += EVERY
        self._timer = self._loop.call_later(self._due - now, self._look)

    def stop(self) -> None:
        self._timer.cancel()
