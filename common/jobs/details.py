"""What jobs keep of their workers' words: the newest MiB, behind a line that says how much was cut.

A worker may send megabytes with each update, so neither `jobs.runtime_details` nor the details of a
job's events grow without end.
"""

import re
from typing import Any, Final

from sqlalchemy import ColumnElement, Text, bindparam, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import byte_length
from common.database.tables import job_events, jobs

MOST: Final = 1 << 20
"""Bytes that are kept."""

_REASON: Final = " bytes were cut: only the newest MiB is kept]"
_CUT: Final = re.compile(rf"\[([0-9]{{1,18}}){re.escape(_REASON)}\n".encode())
_WORTH_CUTTING: Final = 200

details_size: Final = func.coalesce(byte_length(jobs.c.runtime_details), 0).label("details_size")
"""Bytes of a job's `runtime_details`; PostgreSQL knows them without reading the text."""

_details = select(jobs.c.runtime_details).where(jobs.c.id == bindparam("of_job"))

_size = byte_length(job_events.c.details)
_sized = (
    select(
        job_events.c.id,
        _size.label("size"),
        func.sum(_size).over(order_by=job_events.c.id.desc(), rows=(None, 0)).label("until_here"),
    )
    .where(job_events.c.job_id == bindparam("of_job"), job_events.c.details.is_not(None))
    .subquery()
)
superseded: Final = select(_sized.c.id).where(
    _sized.c.until_here - _sized.c.size >= MOST, _sized.c.size > _WORTH_CUTTING
)
"""Ids of a job's events (`of_job`) behind which a MiB of newer details has been recorded."""

superseded_line: Final = "[" + cast(_size, Text) + _REASON
"""What such an event keeps instead of its details."""


def newest(text: str) -> str:
    """The newest MiB of a text, behind a line that says how much has been cut, now and before."""
    if len(text) <= MOST // 4:  # no character takes more than four bytes
        return text
    whole = text.encode()
    first = _CUT.match(whole)
    if len(whole) - (first.end() if first else 0) <= MOST:
        return text
    start = len(whole) - MOST
    lines = [line for line in _CUT.finditer(whole) if line.start() < start]
    start = max([start, *(line.end() for line in lines)])
    kept = whole[start:].decode(errors="ignore")  # it may begin within a character
    cut = len(whole) - len(kept.encode()) + sum(int(line[1]) - len(line[0]) for line in lines)
    return f"[{cut}{_REASON}\n{kept}"


def overflows(size: int, text: str) -> bool:
    """Whether `runtime_details` of `size` bytes cannot keep another line as a whole."""
    return size + 1 + len(text.encode()) > MOST


async def with_appended(
    tx: AsyncConnection, job_id: int, size: int, text: str
) -> str | ColumnElement[Any]:
    """The locked job's `runtime_details`, of `size` bytes, with another line.

    The database appends it as long as all of it is kept.
    """
    before = jobs.c.runtime_details
    if not overflows(size, text):
        return case((or_(before.is_(None), before == ""), text), else_=before + ("\n" + text))
    kept = (await tx.execute(_details, {"of_job": job_id})).scalar_one()
    return newest(f"{kept}\n{text}" if kept else text)
