"""A job as clients read it, for lists: without the texts of long ones.

`common.jobs.answer` has the columns; `JobSchema` documents them.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Dialect, Text, case, cast, func, type_coerce

from common.database.engine import byte_length
from common.database.tables import jobs
from common.jobs.answer import COLUMNS, Convert, Hardware, Job, RawJson

LONG: Final = 4_096
"""Bytes of texts above which a job is long: it is read by itself, not in a page."""


class _ShortJson(RawJson):
    """JSON text, or None where it is left out."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:  # noqa: ARG002
        return lambda text: None if text is None else orjson.Fragment(text)


def _short_only() -> Iterable[ColumnElement[Any]]:
    """`COLUMNS`, without the texts of a long job; its `attributes` are NULL, as no others are."""
    details = byte_length(jobs.c.runtime_details)
    size = (
        byte_length(cast(jobs.c.attributes, Text))
        + func.coalesce(byte_length(cast(jobs.c.hardware, Text)), 0)
        + func.coalesce(details, 0)
    )
    attributes = case((size <= LONG, cast(jobs.c.attributes, Text)))
    hardware = case((byte_length(cast(jobs.c.hardware, Text)) <= LONG, cast(jobs.c.hardware, Text)))
    short = {
        "attributes": type_coerce(attributes, _ShortJson),
        "hardware": type_coerce(hardware, Hardware),
        "runtime_details": case((details <= LONG, jobs.c.runtime_details)),
    }
    for column in COLUMNS:
        name = str(column.name)
        yield short[name].label(name) if name in short else column


SHORT_COLUMNS: Final = tuple(_short_only())


def is_long(job: Job) -> bool:
    """Whether a row of `SHORT_COLUMNS` lacks the job's texts."""
    return job["attributes"] is None
