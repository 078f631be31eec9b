"""Samples of the services and of the tables, taken every few seconds."""

import asyncio
import os
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from benchmarks.soak.flatness import Point
from devtools.database import RawDatabase
from devtools.proc import cpu_seconds, resident_mib
from devtools.restartable import Restartable

TABLES: Final = ("jobs", "job_events", "handovers", "handover_numbers", "emails")

_MIB: Final = 1 << 20
_CONNECTIONS: Final = re.compile(r"^opencloud_database_connections\{.*\} (.+)$", re.MULTILINE)


def sample_process(pid: int) -> dict[str, float]:
    """Memory in MiB, file handles, threads, and processor seconds so far."""
    return {
        "memory": resident_mib(pid),
        "file handles": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "cpu (s)": cpu_seconds([pid]),
    }


def count_connections(metrics: str) -> int:
    """The database connections of a service, from its metrics page."""
    return int(sum(map(float, _CONNECTIONS.findall(metrics))))


def sample_tables(database: RawDatabase) -> dict[str, dict[str, float]]:
    """Rows of each table; on PostgreSQL also dead rows, and MiB with its indexes. Blocks."""
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    (rows,) = database.fetch(f"SELECT {counts}")
    found: dict[str, dict[str, float]] = {
        table: {"rows": count} for table, count in zip(TABLES, rows, strict=True)
    }
    if not database.is_sqlite:
        for table, dead, size in database.fetch(
            "SELECT relname, n_dead_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        ):
            if table in found:
                found[table] |= {"dead rows": dead, "MiB": size / _MIB}
    return found


class Sampler:
    """Series of points by process or table, then by measure."""

    def __init__(self, services: Sequence[Restartable], database: RawDatabase) -> None:
        self.processes: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
        self.tables: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
        self._services = services
        self._database = database
        self._started = time.monotonic()

    async def run(self, every: float, over: asyncio.Event) -> None:
        """Take a sample every so many seconds until the event."""
        while not over.is_set():
            processes = {}
            for service in self._services:
                processes[service.name] = measures = sample_process(service.process.pid)
                page = await service.process.page("/metrics")
                measures["connections"] = count_connections(page)
            tables = await asyncio.to_thread(sample_tables, self._database)
            at = time.monotonic() - self._started
            for series, found in ((self.processes, processes), (self.tables, tables)):
                for name, measures in found.items():
                    for measure, value in measures.items():
                        series[name][measure].append((at, value))
            await asyncio.sleep(every)
