"""What `details=true` adds to jobs."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Text, bindparam, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from common.database.engine import padded
from common.database.tables import handovers, job_labels, jobs
from common.jobs.answer import Job
from common.jobs.lifecycle import Status
from common.outbox.item import OutboxState
from gateway.http.responses import iso

_STATES: Final = {
    OutboxState.PENDING: "waiting",
    OutboxState.HELD: "waiting",
    OutboxState.SENDING: "sent",
    OutboxState.IN_DOUBT: "sent",
    OutboxState.DONE: "taken",
    OutboxState.FAILED: "refused",
    OutboxState.DROPPED: "dropped",
}


class _json_object(FunctionElement[Any]):  # noqa: N801 - reads like the SQL function that it is
    """Keys and values of many rows as one JSON object."""

    inherit_cache = True
    name = "json_object"


@compiles(_json_object, "postgresql")
def _of_postgresql(function: _json_object, compiler: Any, **kw: Any) -> str:
    return f"json_object_agg({compiler.process(function.clauses, **kw)})"


@compiles(_json_object, "sqlite")
def _of_sqlite(function: _json_object, compiler: Any, **kw: Any) -> str:
    return f"json_group_object({compiler.process(function.clauses, **kw)})"


_ids: Any = bindparam("ids", expanding=True)

_labels = (
    select(cast(_json_object(job_labels.c.key, job_labels.c.value), Text))
    .where(job_labels.c.job_id == jobs.c.id)
    .scalar_subquery()
)
_details = (
    select(
        jobs.c.id,
        jobs.c.status,
        jobs.c.correlation_id,
        jobs.c.worker_number,
        jobs.c.batch_id,
        jobs.c.repeated_from,
        jobs.c.cancelled_at,
        jobs.c.cancelled_by,
        jobs.c.cancel_reason,
        jobs.c.cancel_confirmed_at,
        jobs.c.last_seen_at,
        handovers.c.state,
        handovers.c.attempts,
        _labels.label("labels"),
    )
    .join_from(jobs, handovers, handovers.c.job_id == jobs.c.id, isouter=True)
    .where(jobs.c.id.in_(_ids))
)


async def with_details(connection: AsyncConnection, found: Sequence[Job]) -> list[Job]:
    """The jobs with their details; those that are gone by now are left out."""
    if not found:
        return []
    values = {"ids": padded([job["id"] for job in found])}
    rows = {row.id: row for row in await connection.execute(_details, values)}
    return [{**job, **_shown(rows[job["id"]])} for job in found if job["id"] in rows]


def _shown(row: Any) -> dict[str, Any]:
    cancelled = None
    if row.cancelled_at is not None:
        cancelled = {
            "by": row.cancelled_by,
            "reason": row.cancel_reason,
            "date": iso(row.cancelled_at),
            "confirmed": iso(row.cancel_confirmed_at),
        }
    labels = orjson.loads(row.labels or "{}")  # PostgreSQL has null for no rows
    return {
        "labels": dict(sorted(labels.items())),
        "batch_id": row.batch_id,
        "repeated_from": row.repeated_from,
        "cancelled": cancelled,
        "last_seen_at": iso(row.last_seen_at),
        "handover": _handover(row),
    }


def _handover(row: Any) -> dict[str, Any]:
    """The hand-over. Once it is settled and pruned, and for jobs that an older service handed over
    (which have no correlation id), its end is inferred from the job, with the fewest attempts."""
    if row.state is not None:
        return {"state": _STATES[OutboxState(row.state)], "attempts": row.attempts}
    heard = row.correlation_id is None or row.worker_number is not None
    if not heard and row.cancelled_at is not None:
        return {"state": "dropped", "attempts": 0}
    if not heard and Status.of_row(row.status) is Status.ERROR:
        return {"state": "refused", "attempts": 1}
    return {"state": "taken", "attempts": 1}
