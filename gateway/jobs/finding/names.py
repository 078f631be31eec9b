"""Patterns of job names, in which `*` stands for anything: as conditions of both databases."""

import re
from typing import Any

from sqlalchemy import ColumnElement, String, collate, literal_column

from common.database.tables import jobs

_STARS = re.compile(r"\*+")


def is_exact(pattern: str | None) -> bool:
    """Whether there is a pattern, which only one name matches."""
    return pattern is not None and "*" not in pattern


def by_code_points(*, is_sqlite: bool) -> ColumnElement[Any]:
    """The name, to be compared and ordered by code points, as an index has it."""
    return jobs.c.job_name if is_sqlite else collate(jobs.c.job_name, "C")


def matches(pattern: str, *, is_sqlite: bool) -> ColumnElement[bool]:
    """Whether a job's name matches; case counts."""
    if is_exact(pattern):
        return jobs.c.job_name == pattern
    pattern = _STARS.sub("*", pattern)
    if is_sqlite:  # whose LIKE ignores case
        # `+`: it would choose the index for a pattern that fits most
        name: ColumnElement[Any] = literal_column("+jobs.job_name", String)
        return name.op("GLOB", is_comparison=True)(re.sub(r"([\[?])", r"[\1]", pattern))
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern).replace("*", "%")
    return jobs.c.job_name.like(escaped, escape="\\")


def in_range(pattern: str, *, is_sqlite: bool) -> list[ColumnElement[bool]]:
    """The part of the index that holds all names that match a pattern which begins with letters."""
    start = pattern.partition("*")[0]
    name = by_code_points(is_sqlite=is_sqlite)
    end = _successor(start)
    return [name >= start, *([name < end] if end else [])]


def _successor(start: str) -> str:
    """The first text behind all that begin with `start`; empty if there is none."""
    while start:
        code = ord(start[-1]) + 1
        if code <= 0x10FFFF:
            return start[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        start = start[:-1]
    return ""
