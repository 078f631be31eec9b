"""Rows of jobs and outboxes as the services write them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import RowMapping, Table, insert, select, update

from common.database.engine import Database, utc_now
from common.database.tables import emails, handovers, jobs
from devtools.waiting import eventually
from gateway.jobs.insertion import NewJob

PAYLOAD: Mapping[str, Any] = {
    "job": {
        "app": {"cmd": ["true"], "env": None},
        "handler": {
            "image_url": "image",
            "image_name": "decode",
            "image_version": "v1",
            "entrypoint": "train",
            "files_down": {},
            "files_up": {"log": "log"},
        },
        "meta": {"date_created": "2026-01-01T12:00:00"},
        "hardware": {},
    },
    "environment": None,
    "group": None,
    "priority": 0,
    "paths_upload": {"output": "o", "log": "l", "artifact": "a"},
}
"""What a hand-over stores of a job."""


async def add_job(database: Database, **values: Any) -> int:
    """A queued job; returns its id."""
    defaults = {
        "user_id": "ada",
        "user_email": "ada@example.org",
        "job_name": uuid4().hex,
        "date_created": utc_now(),
        "status": "queued",
        "paths_out": {},
        "priority": 0,
        "application": {"application": "decode", "version": "v1", "entrypoint": "train"},
        "attributes": {},
        "hardware": None,
        "correlation_id": uuid4().hex,
    }
    return await _add(database, jobs, defaults | values)


def submission(user: str = "ada", priority: int = 0) -> NewJob:
    """A job to insert, as the gateway does it."""
    row: dict[str, Any] = {
        "user_id": user,
        "job_name": uuid4().hex,
        "status": "queued",
        "paths_out": {},
        "priority": priority,
        "application": {},
        "attributes": {},
        "correlation_id": uuid4().hex,
    }
    return NewJob(row, lambda _: orjson.dumps(PAYLOAD).decode())


async def add_handover(database: Database, job_id: int | None = None, **values: Any) -> int:
    """A due hand-over, of a job of its own unless one is named; returns the job's id."""
    job_id = job_id or await add_job(database)
    own = {"priority": 0, "number": job_id, "payload": orjson.dumps(PAYLOAD).decode()}
    await _add(database, handovers, _due(job_id) | own | values)
    return job_id


async def add_mail(database: Database, job_id: int | None = None, **values: Any) -> int:
    """A due mail, about a job of its own unless one is named; returns the job's id."""
    job_id = job_id or await add_job(database, status="finished")
    own = {"kind": "finished", "recipient": "ada@example.org", "custom_id": uuid4().hex}
    await _add(database, emails, _due(job_id) | own | values)
    return job_id


def _due(job_id: int) -> dict[str, Any]:
    """What the rows of all outboxes have."""
    return {
        "state": "pending",
        "due_at": utc_now(),
        "created_at": utc_now(),
        "correlation_id": f"correlation-{job_id}",
        "job_id": job_id,
    }


async def _add(database: Database, table: Table, row: Mapping[str, Any]) -> int:
    key = next(iter(table.primary_key))
    async with database.transaction() as tx:
        added = await tx.execute(insert(table).values(row).returning(key))
        return int(added.scalar_one())


async def job_row(database: Database, job_id: int) -> RowMapping:
    """The job as it is now."""
    return await _one(database, jobs, jobs.c.id == job_id)


async def outbox_row(database: Database, table: Table, job_id: int) -> RowMapping:
    """The job's row in an outbox as it is now."""
    return await _one(database, table, table.c.job_id == job_id)


async def rows(database: Database, table: Table) -> list[RowMapping]:
    """All rows of a table, by their key."""
    key = next(iter(table.primary_key))
    async with database.reading() as connection:
        return list((await connection.execute(select(table).order_by(key))).mappings())


async def change(database: Database, table: Table, job_id: int, **values: Any) -> None:
    """Change the job's row(s) of a table."""
    key = table.c.id if table is jobs else table.c.job_id
    async with database.transaction() as tx:
        await tx.execute(update(table).where(key == job_id).values(values))


async def end_leases(database: Database, table: Table) -> None:
    """Let the leases of everything that is being sent run out now."""
    being_sent = table.c.state == "sending"
    async with database.transaction() as tx:
        await tx.execute(update(table).where(being_sent).values(leased_until=utc_now(-1.0)))


async def states(database: Database, table: Table) -> list[str]:
    """The states of an outbox's items, by their ids."""
    return [str(row["state"]) for row in await rows(database, table)]


async def until(database: Database, table: Table, *, within: float = 30.0, **counts: int) -> None:
    """Wait until an outbox holds exactly so many items in these states."""

    async def is_so() -> bool:
        return Counter(await states(database, table)) == Counter(counts)

    await eventually(is_so, within=within)


async def all_done(database: Database, table: Table, count: int | None = None) -> bool:
    """Whether everything in an outbox, or so many items, has been delivered."""
    found = await states(database, table)
    return bool(found) and found == ["done"] * (count or len(found))


async def _one(database: Database, table: Table, condition: Any) -> RowMapping:
    async with database.reading() as connection:
        return (await connection.execute(select(table).where(condition))).mappings().one()
