"""What clients send about files, and what they are answered."""

from typing import Final

from marshmallow import Schema, fields

from gateway.http.fields import Choice, Flag, RequestSchema, Text, TreePath, Whole

UPLOAD_TYPES: Final = ("config", "data", "artifact")


class PathSchema(RequestSchema):
    """Something in the caller's tree."""

    file_path = TreePath(
        required=True,
        metadata={
            "description": "Path in the caller's tree; empty: its root.",
            "example": "data/x/f.csv",
        },
    )


class UploadPlaceSchema(RequestSchema):
    """A directory that the caller may write to."""

    f_type = Choice(
        UPLOAD_TYPES,
        required=True,
        metadata={"description": "Top-level directory to write to.", "example": "data"},
    )
    base_path = TreePath(
        required=True,
        metadata={"description": "Directory below it; empty: the same.", "example": "x"},
    )


class ListingSchema(RequestSchema):
    """What a listing shows."""

    show_dirs = Flag(load_default=True, metadata={"description": "Show directories."})
    recursive = Flag(load_default=False, metadata={"description": "Show what lies below, too."})
    details = Flag(
        load_default=False, metadata={"description": "Add `bytes`, `modified` and `etag`."}
    )
    limit = Whole(
        load_default=None,
        least=1,
        metadata={"description": "How many entries at most; `Link` names the next page."},
    )
    after = Text(
        load_default="", metadata={"description": "Show only entries whose path sorts later."}
    )


class RenameSchema(RequestSchema):
    """Where a file goes."""

    path = Text(required=True, metadata={"description": "New path, relative to the tree."})


class FileSchema(Schema):
    """A file or a directory."""

    path = fields.String(metadata={"description": "A directory's ends in a slash."})
    type = fields.String(metadata={"enum": ["file", "directory"]})
    size = fields.String(metadata={"description": "For people; empty for a directory."})
    bytes = fields.Integer(
        allow_none=True, metadata={"description": "Only with `details`: the exact size."}
    )
    modified = fields.String(
        allow_none=True, metadata={"description": "Only with `details`: UTC, ISO 8601."}
    )
    etag = fields.String(
        allow_none=True, metadata={"description": "Only with `details`: a strong validator."}
    )


class RequestToSendSchema(Schema):
    """A request that the client sends next, word for word."""

    method = fields.String(metadata={"enum": ["get", "post"]})
    url = fields.String()
    headers = fields.Dict(keys=fields.String(), values=fields.String())
    data = fields.Dict(keys=fields.String(), values=fields.String())
