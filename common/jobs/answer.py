"""A job as clients read it: one column per key.

Rows go to `orjson.dumps` as they are, with JSON columns passed through as text.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import starmap
from typing import Any, Final

import orjson
from sqlalchemy import Column, ColumnElement, DateTime, Dialect, Text, cast, func, type_coerce
from sqlalchemy.types import TypeDecorator

from common.database.tables import jobs

_LONGEST_CACHED: Final = 1_024

HARDWARE_KEYS: Final = ("cpu_cores", "memory", "gpu_model", "gpu_archi", "gpu_mem")

Job = dict[str, Any]
"""A job as clients read it, for `orjson.dumps`."""

Convert = Callable[[Any], Any]


class RawJson(TypeDecorator[Any]):
    """JSON text, passed through unparsed."""

    impl = Text
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:  # noqa: ARG002
        return orjson.Fragment


class Hardware(RawJson):
    """JSON text, completed to all of `HARDWARE_KEYS`."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:  # noqa: ARG002
        return _hardware


class _Date(TypeDecorator[Any]):
    """A date; as text if orjson would write it without microseconds, since they are zero."""

    impl = DateTime
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Convert:
        parse = super().result_processor(dialect, coltype)
        return _with_microseconds if parse is None else lambda v: _with_microseconds(parse(v))


def _hardware(text: str | None) -> orjson.Fragment:
    if text and len(text) > _LONGEST_CACHED:  # the cache's size is counted in texts
        return _complete_hardware.__wrapped__(text)
    return _complete_hardware(text)


@lru_cache(maxsize=4_096)  # most rows have the same
def _complete_hardware(text: str | None) -> orjson.Fragment:
    try:
        found = orjson.loads(text or "null")
    except orjson.JSONDecodeError:  # an adopted row; SQLite accepts anything
        found = None
    stored = found if isinstance(found, dict) else {}
    return orjson.Fragment(orjson.dumps({key: stored.get(key) for key in HARDWARE_KEYS}))


def _with_microseconds(date: datetime | None) -> datetime | str | None:
    return date if date is None or date.microsecond else date.isoformat(timespec="microseconds")


def date_of(shown: datetime | str | None) -> datetime | None:
    """A date of a job, from what the job as it is answered holds."""
    return datetime.fromisoformat(shown) if isinstance(shown, str) else shown


def _text_of(column: Column[Any], kind: type[TypeDecorator[Any]]) -> ColumnElement[Any]:
    return type_coerce(cast(column, Text), kind).label(column.name)


def _date(column: Column[Any]) -> ColumnElement[Any]:
    return type_coerce(column, _Date).label(column.name)


COLUMNS: Final[tuple[ColumnElement[Any], ...]] = (
    jobs.c.job_name,
    func.nullif(cast(jobs.c.environment, Text), "any").label("environment"),
    jobs.c.priority,
    _text_of(jobs.c.application, RawJson),
    _text_of(jobs.c.attributes, RawJson),
    _text_of(jobs.c.hardware, Hardware),
    jobs.c.id,
    jobs.c.user_id,
    jobs.c.user_email,
    _date(jobs.c.date_created),
    _date(jobs.c.date_started),
    _date(jobs.c.date_finished),
    jobs.c.status,
    jobs.c.runtime_details,
    _text_of(jobs.c.paths_out, RawJson),
)


JOB_KEYS: Final = tuple(str(column.name) for column in COLUMNS)


def _dict_maker(names: Sequence[str]) -> Callable[..., Job]:
    """A function from the values of columns with these names to a dict.

    It is compiled from a dict literal, which takes half the time of `dict(zip(names, row))`.
    """
    pairs = ", ".join(f"{name!r}: {name}" for name in names)
    return eval(f"lambda {', '.join(names)}: {{{pairs}}}")  # type: ignore[no-any-return] # noqa: S307


_make_job: Final = _dict_maker(JOB_KEYS)


def as_jobs(rows: Iterable[Sequence[Any]]) -> list[Job]:
    return list(starmap(_make_job, rows))
