"""An entry of a user's tree as JSON, the same in every answer; `FileSchema` documents it."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import humanize
from marshmallow import fields

from common.storage.protocol import Entry
from gateway.http.responses import AnswerSchema, iso

FILE_EXAMPLE: Final = {"path": "data/x/f.csv", "type": "file", "size": "19 Bytes"}


class FileSchema(AnswerSchema):
    """A file or a directory."""

    path = fields.String(metadata={"description": "A directory's ends in a slash."})
    type = fields.String(metadata={"enum": ["file", "directory"]})
    size = fields.String(metadata={"description": "For people; empty for a directory."})
    bytes = fields.Integer(
        allow_none=True,
        metadata={"optional": True, "description": "Only with `details`: the exact size."},
    )
    modified = fields.String(
        allow_none=True,
        metadata={"optional": True, "description": "Only with `details`: UTC, ISO 8601."},
    )
    etag = fields.String(
        allow_none=True,
        metadata={"optional": True, "description": "Only with `details`: a strong validator."},
    )
    sha256 = fields.String(
        metadata={
            "optional": True,
            "description": "Only with `details`, in listings of files, where the digest is known: "
            "in hexadecimal.",
        },
    )


@lru_cache(maxsize=8_192)
def natural_size(size: int) -> str:
    """A human-readable size: `19 Bytes`, `1.0 kB`."""
    return humanize.naturalsize(size)


def entry_json(entry: Entry) -> dict[str, Any]:
    """The keys of an entry in every listing."""
    size = entry.size
    if size is None:
        return {"path": entry.path, "type": "directory", "size": ""}
    return {"path": entry.path, "type": "file", "size": natural_size(size)}


def detailed_json(entry: Entry) -> dict[str, Any]:
    """The keys of an entry in a listing with `details`."""
    modified = None
    if entry.modified is not None:
        modified = iso(datetime.fromtimestamp(entry.modified, UTC).replace(tzinfo=None))
    return {**entry_json(entry), "bytes": entry.size, "modified": modified, "etag": entry.etag}
