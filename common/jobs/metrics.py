"""Metrics of jobs, observed where their rows change: in the gateway and in the dispatcher."""

from typing import Any, Final

import orjson
from prometheus_client import Counter, Histogram

_TIMES: Final = (1, 5, 15, 60, 300, 900, 3_600, 4 * 3_600, 12 * 3_600, 86_400, 3 * 86_400)
"""Upper bounds in seconds: jobs wait and run from seconds to days."""

_MOST_APPLICATIONS: Final = 50
"""Applications with series of their own, for each of which a histogram has fourteen."""

ENDED: Final = Counter(
    "opencloud_jobs_ended",
    "Jobs that became finished or error; again if an error is undone",
    ["outcome"],
)
QUEUED_SECONDS: Final = Histogram(
    "opencloud_job_queued_seconds",
    "Time from a job's submission until a worker had it, by application",
    ["application"],
    buckets=_TIMES,
)
RUN_SECONDS: Final = Histogram(
    "opencloud_job_run_seconds",
    "Time from when a worker had a job until it ended, by application",
    ["application"],
    buckets=_TIMES,
)

for _outcome in ("finished", "error"):
    ENDED.labels(_outcome)

_applications: Final[set[str]] = set()


def application_label(stored: str | None) -> str:
    """The label for a job's `application`, as stored: its name; `other` for those beyond the first
    `_MOST_APPLICATIONS` of this process, and for what names none."""
    try:
        found: Any = orjson.loads(stored or "null")
    except orjson.JSONDecodeError:  # an adopted row; SQLite accepts anything
        found = None
    name = found.get("application") if isinstance(found, dict) else None
    if not isinstance(name, str):
        return "other"
    if name not in _applications and len(_applications) >= _MOST_APPLICATIONS:
        return "other"
    _applications.add(name)
    return name
