"""What is looked at every few seconds: the processes, and the database."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.database import TestDatabase
from benchmarks.soak.services import Service
from devtools.proc import cpu_seconds, resident_mib

TABLES: Final = ("jobs", "job_events", "handovers", "handover_numbers", "emails")

_MIB: Final = 1 << 20
_LAG: Final = "opencloud_loop_lag_seconds_bucket"
_CONNECTIONS: Final = "opencloud_database_connections"


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """A process at `at`, in seconds since the start. `memory` is resident, in MiB; `cpu` in
    seconds of processor time. `connections` are to the database; `lag` counts the event loop's
    delays up to each bound (s), since the process began: both only of what serves metrics."""

    at: float
    memory: float
    handles: int
    threads: int
    cpu: float
    connections: int = 0
    lag: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TableSample:
    """A table, with its indexes; `size` in MiB. `dead` and `size` only on PostgreSQL."""

    at: float
    rows: int
    dead: int
    size: float


@dataclass(frozen=True, kw_only=True)
class DatabaseSample:
    """`size` in MiB; of `backlog` no item is settled. `pids` of the server's processes and
    `connections`, ours left out, only on PostgreSQL."""

    at: float
    tables: dict[str, TableSample]
    size: float
    connections: int
    backlog: int
    pids: list[int]


async def look_at_process(
    session: aiohttp.ClientSession, service: Service, at: float
) -> ProcessSample:
    """A sample of a process, with its metrics if it has some."""
    connections = 0
    lag: dict[float, float] = {}
    if service.ready.endswith("/readyz"):
        async with session.get(service.ready.removesuffix("/readyz") + "/metrics") as response:
            connections, lag = read_metrics(await response.text())
    return sample_of(service.pid, at, connections, lag)


def sample_of(
    pid: int, at: float, connections: int = 0, lag: dict[float, float] | None = None
) -> ProcessSample:
    """What `/proc` tells of a process."""
    folder = Path(f"/proc/{pid}")
    return ProcessSample(
        at=at,
        memory=resident_mib(pid),
        handles=len(os.listdir(folder / "fd")),
        threads=len(os.listdir(folder / "task")),
        cpu=cpu_seconds([pid]),
        connections=connections,
        lag=lag or {},
    )


def read_metrics(page: str) -> tuple[int, dict[float, float]]:
    """Database connections, and the event loop's delays by their bounds."""
    connections = 0
    lag: dict[float, float] = {}
    for family in text_string_to_metric_families(page):
        for item in family.samples:
            if item.name == _LAG:
                lag[float(item.labels["le"])] = item.value
            elif item.name == _CONNECTIONS:
                connections += int(item.value)
    return connections, lag


def look_at_database(database: TestDatabase, at: float) -> DatabaseSample:
    """A sample of every table; not on an event loop's thread."""
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in TABLES)
    unsettled = " + ".join(
        f"(SELECT count(*) FROM {table} WHERE settled_at IS NULL)"
        for table in ("handovers", "emails")
    )
    ((*rows, backlog),) = database.fetch(f"SELECT {counts}, {unsettled}")
    if database.is_sqlite:
        found = dict.fromkeys(TABLES, (0, 0.0))
        size = sum(
            path.stat().st_size / _MIB
            for path in Path(database.path).parent.glob(f"{Path(database.path).name}*")
        )
        connections, pids = 0, []
    else:
        found = _sizes(database)
        ((size, connections, pids),) = database.fetch(
            f"SELECT pg_database_size(current_database())::float / {_MIB},"
            " count(*) FILTER (WHERE datname = current_database()), array_agg(pid)"
            " FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    return DatabaseSample(
        at=at,
        tables={
            name: TableSample(at=at, rows=count, dead=found[name][0], size=found[name][1])
            for name, count in zip(TABLES, rows, strict=True)
        },
        size=size,
        connections=connections,
        backlog=backlog,
        pids=pids,
    )


def _sizes(database: TestDatabase) -> dict[str, tuple[int, float]]:
    found = database.fetch(
        f"SELECT relname, n_dead_tup, pg_total_relation_size(relid)::float / {_MIB}"
        " FROM pg_stat_user_tables"
    )
    return {str(name): (int(dead), float(size)) for name, dead, size in found}


class Watch:
    """Samples of the same processes and of the database, as long as it is kept up.

    `server_cpu` is the processor time (s) that the database's server has used meanwhile.
    """

    def __init__(
        self, session: aiohttp.ClientSession, services: Sequence[Service], database: TestDatabase
    ) -> None:
        self.processes: dict[str, list[ProcessSample]] = {item.name: [] for item in services}
        self.database: list[DatabaseSample] = []
        self.server_cpu = 0.0
        self._session = session
        self._services = services
        self._of = database
        self._started = time.monotonic()
        self._used: dict[int, float] = {}

    async def keep_up(self, every: float) -> None:
        """Look every so many seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        at = time.monotonic() - self._started
        for service in self._services:
            sample = await look_at_process(self._session, service, at)
            self.processes[service.name].append(sample)
        found = await asyncio.to_thread(look_at_database, self._of, at)
        self.database.append(found)
        used = {pid: cpu_seconds([pid]) for pid in found.pids}
        self.server_cpu += sum(
            seconds - self._used.get(pid, seconds) for pid, seconds in used.items()
        )
        self._used = used
