"""Entries of a listing as the JSON that clients read."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import humanize
import orjson

from common.storage.protocol import Entry
from gateway.http.responses import iso


@lru_cache(maxsize=8_192)
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


def render(entries: Iterable[Entry], *, details: bool) -> bytes:
    """The entries as JSON, separated by commas."""
    return orjson.dumps([*map(detailed_as_json if details else entry_as_json, entries)])[1:-1]
