"""The pool of database connections, shares of it, and its metrics."""

import asyncio
import time
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from common.database.errors import DatabaseUnavailable

SIZE: Final = Gauge(
    "opencloud_database_pool_size", "Most connections that the process may have to the database"
)
CONNECTIONS: Final = Gauge(
    "opencloud_database_connections", "Connections to the database: in_use, idle", ["state"]
)
WAITS: Final = Histogram(
    "opencloud_database_wait_seconds",
    "Waits for a connection when none was free",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
TIMEOUTS: Final = Counter(
    "opencloud_database_pool_timeouts", "Waits for a connection that ended without one"
)


class ConnectionPool(AsyncAdaptedQueuePool):
    """Counts the waits; a free connection costs no more than a comparison."""

    def _do_get(self) -> ConnectionPoolEntry:
        if self.checkedout() < self.size():
            return super()._do_get()
        began = time.perf_counter()
        try:
            return super()._do_get()
        except PoolTimeout:
            TIMEOUTS.inc()
            raise
        finally:
            WAITS.observe(time.perf_counter() - began)


class ConnectionShare:
    """`async with share:` around the use of a connection: at most `connections` at a time.

    Entering waits for at most `timeout` seconds. Raises `DatabaseUnavailable`.
    """

    def __init__(self, connections: int, *, timeout: float) -> None:
        self._free = asyncio.Semaphore(connections)
        self._timeout = timeout

    async def __aenter__(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                await self._free.acquire()
        except TimeoutError as error:
            TIMEOUTS.inc()
            raise DatabaseUnavailable("no connection is free") from error
        finally:
            WAITS.observe(time.perf_counter() - began)

    async def __aexit__(self, *_: object) -> None:
        self._free.release()


def export_pool(engine: AsyncEngine) -> None:
    """Export the engine's pool as metrics, read when they are scraped."""

    def pool() -> Any:
        return engine.pool  # `engine.dispose()` replaces it

    SIZE.set_function(lambda: pool().size())
    CONNECTIONS.labels("in_use").set_function(lambda: pool().checkedout())
    CONNECTIONS.labels("idle").set_function(lambda: pool().checkedin())
