"""Periodic work of a daemon."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

log = get_logger()


class Ticks:
    """Coroutine functions that run periodically.

    A tick never overlaps itself; one that fails is logged and repeated at its next time.
    """

    def __init__(self) -> None:
        # late ticks run late; a long tick skips its next runs, silently
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler: Any = AsyncIOScheduler(
            timezone=UTC,
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self._locks: dict[str, asyncio.Lock] = {}

    def every(self, seconds: float, name: str, tick: Callable[[], Awaitable[object]]) -> None:
        """Run `tick` now and then every `seconds`."""
        lock = self._locks[name] = asyncio.Lock()

        async def run() -> None:
            async with lock:
                try:
                    await tick()
                except DatabaseUnavailable as error:
                    warn_of_database("tick.postponed", tick=name, reason=str(error))
                except Exception:
                    log.exception("tick.failed", tick=name)

        self._scheduler.add_job(
            run, "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC)
        )

    def start(self) -> None:
        self._scheduler.start()

    async def stop(self, grace: float) -> None:
        """Start no more ticks; wait for running ones, which the scheduler would cancel."""
        if not self._scheduler.running:
            return
        self._scheduler.pause()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for lock in self._locks.values():
                    await lock.acquire()
        self._scheduler.shutdown(wait=False)
