"""The floor for what a database bounds: the same statements without HTTP, a process of its own.

`python -m benchmarks.database_floor job|jobs|submit|glance --url URL --user USER --seconds 3`
"""

import argparse
import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from itertools import count, cycle
from typing import Any, Final
from uuid import uuid4

import asyncpg
import orjson
import uvloop

from benchmarks import seed
from benchmarks.tool import print_sample

_TASKS: Final = 32
_POOL: Final = 10

_COLUMNS: Final = (
    "id, user_id, user_email, job_name, CAST(environment AS text), priority, date_created,"
    " date_started, date_finished, status, runtime_details, CAST(application AS text),"
    " CAST(attributes AS text), CAST(hardware AS text), CAST(paths_out AS text)"
)
_SELECTS: Final = {
    "job": f"SELECT {_COLUMNS} FROM jobs WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL",
    "jobs": f"SELECT {_COLUMNS} FROM jobs WHERE $1 > 0 AND user_id = $2 AND deleted_at IS NULL"
    " ORDER BY date_created DESC NULLS LAST, id DESC LIMIT 100",
    "glance": "SELECT id, status, worker_number, last_seen_at FROM jobs"
    " WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL",
}
_NEW_JOB: Final = (
    "INSERT INTO jobs (user_id, user_email, job_name, status, paths_out, environment, priority,"
    " application, attributes, hardware, date_created) VALUES ($1, 'user@example.com', $2,"
    " 'queued', $3, 'cloud', 0, $4, $5, $6, CURRENT_TIMESTAMP) RETURNING id"
)
_NEW_EVENT: Final = (
    "INSERT INTO job_events (job_id, status, source, created_at)"
    " VALUES ($1, 'queued', 'user', CURRENT_TIMESTAMP)"
)
_NEW_HANDOVER: Final = (
    "INSERT INTO handovers (job_id, number, priority, payload, state, due_at, created_at)"
    " VALUES ($1, $1, 0, $2, 'pending', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
)
_INSERTS: Final = (_NEW_JOB, _NEW_EVENT, _NEW_HANDOVER)


def _job_values(user: str, name: str) -> tuple[str, ...]:
    paths = {kind: f"{kind}/{name}" for kind in ("output", "log", "artifact")}
    columns = (paths, seed.APPLICATION, seed.ATTRIBUTES, seed.HARDWARE)
    return (user, name, *(orjson.dumps(column).decode() for column in columns))


async def _run_postgresql(what: str, url: str, user: str, ids: list[int], seconds: float) -> int:
    """As many tasks as the gateway has connections' worth of requests; returns what they did."""
    pool: Any = await asyncpg.create_pool(url, min_size=_POOL, max_size=_POOL)
    mark, numbers, keys = uuid4().hex[:8], count(), cycle(ids)

    async def select() -> None:
        async with pool.acquire() as connection:
            await connection.fetch(_SELECTS[what], next(keys), user)

    async def insert() -> None:
        async with pool.acquire() as connection, connection.transaction():
            values = _job_values(user, f"floor_{mark}_{next(numbers)}")
            job_id = await connection.fetchval(_INSERTS[0], *values)
            await connection.execute(_INSERTS[1], job_id)
            await connection.execute(_INSERTS[2], job_id, seed.PAYLOAD)

    async with pool:
        return await _repeat(insert if what == "submit" else select, seconds)


async def _repeat(work: Callable[[], Awaitable[None]], seconds: float) -> int:
    ends = time.monotonic() + seconds
    done = 0

    async def run() -> None:
        nonlocal done
        while time.monotonic() < ends:
            await work()
            done += 1

    await asyncio.gather(*(run() for _ in range(_TASKS)))
    return done


def _run_sqlite(what: str, url: str, user: str, ids: list[int], seconds: float) -> int:
    """One connection, one thread: a file has one writer anyway."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30.0, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    inserts = [statement.replace("$", "?") for statement in _INSERTS]
    mark, keys, done = uuid4().hex[:8], cycle(ids), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if what == "submit":
            connection.execute("BEGIN IMMEDIATE")
            values = _job_values(user, f"floor_{mark}_{done}")
            ((job_id,),) = connection.execute(inserts[0], values).fetchall()
            connection.execute(inserts[1], (job_id,))
            connection.execute(inserts[2], (job_id, seed.PAYLOAD))
            connection.execute("COMMIT")
        else:
            connection.execute(_SELECTS[what].replace("$", "?"), (next(keys), user)).fetchall()
        done += 1
    connection.close()
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*_SELECTS, "submit"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--ids", type=int, nargs=2, default=(1, 1))
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    ids = list(range(given.ids[0], given.ids[1] + 1))
    arguments = (given.what, given.url, given.user, ids, given.seconds)
    if given.url.startswith("sqlite"):
        print_sample(lambda: _run_sqlite(*arguments))
    else:
        print_sample(lambda: uvloop.run(_run_postgresql(*arguments)))


if __name__ == "__main__":
    main()
