"""Entries of a listing as the JSON that clients read."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import humanize

from common.storage.protocol import Entry
from gateway.jobs.rows import iso


@lru_cache(maxsize=65_536)
def natural_size(size: int) -> str:
    """A size for people: `19 Bytes`, `1.0 kB`."""
    return humanize.naturalsize(size)


def entry_as_json(entry: Entry) -> dict[str, Any]:
    """These three keys exactly."""
    size = entry.size
    if size is None:
        return {"path": entry.path, "type": "directory", "size": ""}
    return {"path": entry.path, "type": "file", "size": natural_size(size)}


def detailed_as_json(entry: Entry) -> dict[str, Any]:
    """The three keys, and what `details` adds."""
    modified = None
    if entry.modified is not None:
        modified = iso(datetime.fromtimestamp(entry.modified, UTC).replace(tzinfo=None))
    return {
        **entry_as_json(entry),
        "bytes": entry.size,
        "modified": modified,
        "etag": entry.etag,
    }


def select(
    entries: list[Entry], *, show_dirs: bool, after: str | None, limit: int | None
) -> tuple[list[Entry], str | None]:
    """The part of a sorted listing that was asked for, and where the next part starts after."""
    if after is not None:
        entries = entries[bisect_right(entries, after, key=_path) :]
    if not show_dirs:
        entries = [entry for entry in entries if not entry.is_directory]
    if limit is None or len(entries) <= limit:
        return entries, None
    return entries[:limit], entries[limit - 1].path


def _path(entry: Entry) -> str:
    return entry.path


def render(entries: Iterable[Entry], *, details: bool) -> list[dict[str, Any]]:
    return [*map(detailed_as_json if details else entry_as_json, entries)]
