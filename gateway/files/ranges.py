"""Byte ranges and conditional requests (RFC 9110, sections 13 and 14). Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Final

_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_MAX_SPEC: Final = 4_000  # no client sends longer numbers, and they are slow to parse
_TAG = re.compile(r'(?:W/)?"[^"]*"')

MAX_RANGES: Final = 32
"""Most ranges of a request; for more, the whole file is sent (RFC 9110, section 14.2)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a file: first byte and number of bytes, at least one."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_ranges(header: str | None, size: int) -> list[Span] | None:
    """The requested parts; None: send the whole file; an empty list: no part lies in the file.

    An invalid header is ignored, as are overlapping and too many ranges.
    """
    if header is None:
        return None
    unit, _, text = header.partition("=")
    specs = [spec.strip() for spec in text.split(",")]
    specs = [spec for spec in specs if spec]
    if unit.strip().lower() != "bytes" or not specs or len(specs) > MAX_RANGES:
        return None
    spans = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-" or len(spec) > _MAX_SPEC:
            return None
        first, last = match.groups()
        if first and last and int(last) < int(first):
            return None
        span = _span(first, last, size)
        if span is not None:
            spans.append(span)
    ordered = sorted(spans, key=lambda span: span.start)
    for one, two in pairwise(ordered):
        if one.start + one.length > two.start:
            return None
    return spans


def _span(first: str, last: str, size: int) -> Span | None:
    if not first:  # the last bytes
        length = min(int(last), size)
        return Span(size - length, length) if length else None
    start = int(first)
    if start >= size:
        return None
    end = min(int(last), size - 1) if last else size - 1
    return Span(start, end - start + 1)


def is_not_modified(headers: Mapping[str, str], etag: str, modified: float | None) -> bool:
    """Whether the client's copy is current; `If-None-Match` overrides `If-Modified-Since`."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or f'"{etag}"' in _weakened(tags)
    since = _timestamp(headers.get("If-Modified-Since"))
    return since is not None and modified is not None and int(modified) <= since


def is_precondition_failed(headers: Mapping[str, str], etag: str, modified: float | None) -> bool:
    """Whether `If-Match` or `If-Unmodified-Since` forbids to send the file."""
    tags = headers.get("If-Match")
    if tags is not None:
        return tags.strip() != "*" and f'"{etag}"' not in _TAG.findall(tags)
    until = _timestamp(headers.get("If-Unmodified-Since"))
    return until is not None and modified is not None and int(modified) > until


def is_range_valid(headers: Mapping[str, str], etag: str, modified: float | None) -> bool:
    """Whether `If-Range`, if present, names the current version of the file."""
    condition = headers.get("If-Range")
    if condition is None:
        return True
    if '"' in condition:
        return condition.strip() == f'"{etag}"'
    moment = _timestamp(condition)
    return moment is not None and modified is not None and int(modified) == moment


def _weakened(tags: str) -> list[str]:
    return [tag.removeprefix("W/") for tag in _TAG.findall(tags)]


def _timestamp(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
