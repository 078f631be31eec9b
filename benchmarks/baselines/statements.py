"""The gateway's statements through asyncpg alone, without HTTP."""

import asyncio
import time
from collections.abc import Sequence
from itertools import count, cycle
from typing import Any, Final, Literal
from uuid import uuid4

import asyncpg
import orjson

from benchmarks import seed

Statement = Literal["job", "jobs", "keepalive", "submit"]

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
    "keepalive": "SELECT id, status, worker_number, last_seen_at FROM jobs"
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


async def execute(url: str, what: Statement, user: str, ids: Sequence[int], seconds: float) -> int:
    """Repeat a statement for jobs with these ids; returns how often.

    As many tasks as the gateway has requests, on a pool of the gateway's size.
    """
    pool: Any = await asyncpg.create_pool(url, min_size=_POOL, max_size=_POOL)
    mark, numbers, keys = uuid4().hex[:8], count(), cycle(ids)
    ends = time.monotonic() + seconds

    async def select(connection: Any) -> None:
        await connection.fetch(_SELECTS[what], next(keys), user)

    async def insert(connection: Any) -> None:
        values = _job_values(user, f"baseline_{mark}_{next(numbers)}")
        async with connection.transaction():
            job_id = await connection.fetchval(_NEW_JOB, *values)
            await connection.execute(_NEW_EVENT, job_id)
            await connection.execute(_NEW_HANDOVER, job_id, seed.PAYLOAD)

    async def repeat() -> int:
        done = 0
        while time.monotonic() < ends:
            async with pool.acquire() as connection:
                await (insert if what == "submit" else select)(connection)
            done += 1
        return done

    async with pool:
        return sum(await asyncio.gather(*(repeat() for _ in range(_TASKS))))


def _job_values(user: str, name: str) -> tuple[str, ...]:
    paths = {kind: f"{kind}/{name}" for kind in ("output", "log", "artifact")}
    columns = (paths, seed.APPLICATION, seed.ATTRIBUTES, seed.HARDWARE)
    return (user, name, *(orjson.dumps(column).decode() for column in columns))
