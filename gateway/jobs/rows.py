"""Rows of `jobs` as the JSON that clients read; JSON columns pass through as they are stored."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import orjson
from sqlalchemy import Text, cast

from common.database.tables import jobs
from gateway.http.responses import iso

HARDWARE_KEYS: Final = ("cpu_cores", "memory", "gpu_model", "gpu_archi", "gpu_mem")

COLUMNS: Final = (
    jobs.c.id,
    jobs.c.user_id,
    jobs.c.user_email,
    jobs.c.job_name,
    cast(jobs.c.environment, Text).label("environment"),
    jobs.c.priority,
    jobs.c.date_created,
    jobs.c.date_started,
    jobs.c.date_finished,
    jobs.c.status,
    jobs.c.runtime_details,
    # as text: they are passed on, not looked into
    cast(jobs.c.application, Text).label("application"),
    cast(jobs.c.attributes, Text).label("attributes"),
    cast(jobs.c.hardware, Text).label("hardware"),
    cast(jobs.c.paths_out, Text).label("paths_out"),
)


def job_as_json(row: Sequence[Any]) -> dict[str, Any]:
    """The job as clients read it, for `orjson.dumps`."""
    (
        job_id,
        user_id,
        user_email,
        job_name,
        environment,
        priority,
        created,
        started,
        finished,
        status,
        details,
        application,
        attributes,
        hardware,
        paths_out,
    ) = row
    return {
        "job_name": job_name,
        "environment": None if environment == "any" else environment,
        "priority": priority,
        "application": orjson.Fragment(application),
        "attributes": orjson.Fragment(attributes),
        "hardware": _hardware(hardware),
        "id": job_id,
        "user_id": user_id,
        "user_email": user_email,
        "date_created": _moment(created),
        "date_started": _moment(started),
        "date_finished": _moment(finished),
        "status": status,
        "runtime_details": details,
        "paths_out": orjson.Fragment(paths_out),
    }


@lru_cache(maxsize=4_096)
def _hardware(text: str | None) -> orjson.Fragment:
    """The five keys, whichever of them the row has; most rows say the same."""
    try:
        found = orjson.loads(text or "null")
    except orjson.JSONDecodeError:  # an adopted row; SQLite takes anything
        found = None
    stored = found if isinstance(found, dict) else {}
    return orjson.Fragment(orjson.dumps({key: stored.get(key) for key in HARDWARE_KEYS}))


def _moment(moment: datetime | None) -> datetime | str | None:
    """The same for `orjson`, which writes it quickly but leaves out microseconds that are zero."""
    return moment if moment is None or moment.microsecond else iso(moment)
