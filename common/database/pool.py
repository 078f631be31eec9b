"""The pool of database connections, and its metrics."""

import time
from typing import Any, Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

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


def export_pool(engine: AsyncEngine) -> None:
    """Export the engine's pool as metrics, read when they are scraped."""

    def pool() -> Any:
        return engine.pool  # `engine.dispose()` replaces it

    SIZE.set_function(lambda: pool().size())
    CONNECTIONS.labels("in_use").set_function(lambda: pool().checkedout())
    CONNECTIONS.labels("idle").set_function(lambda: pool().checkedin())
