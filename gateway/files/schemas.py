"""Schemas of requests and responses about files, with their examples in `/openapi.json`."""

from typing import Any, Final

from marshmallow import fields

from gateway.files.digests.stated import HEX
from gateway.http.digest_fields import WANT_REPR_DIGEST, repr_digest
from gateway.http.errors import shortened
from gateway.http.fields import (
    AnyText,
    Choice,
    Flag,
    RequestSchema,
    TreePath,
    Whole,
    invalid,
)
from gateway.http.responses import AnswerSchema
from gateway.http.upload_limits import UPLOAD_TYPES
from gateway.trees.entries import FILE_EXAMPLE

SHA256_EXAMPLE: Final = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"


class PathSchema(RequestSchema):
    """A file or directory in the caller's tree."""

    file_path = TreePath(
        required=True,
        metadata={
            "description": "Path in the caller's tree; `/`: its root.",
            "example": "data/x/f.csv",
        },
    )


class UploadPlaceSchema(RequestSchema):
    """A directory into which the caller may upload."""

    f_type = Choice(
        UPLOAD_TYPES,
        required=True,
        metadata={"description": "Top-level directory to write to.", "example": "data"},
    )
    base_path = TreePath(
        required=True,
        # Swagger UI and some generators send no empty part of a path
        metadata={"description": "Directory below it; `/`: the same.", "example": "/"},
    )


class Sha256(AnyText):
    """A SHA-256 in hexadecimal, in lower case once it is read."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not HEX.fullmatch(text):
            sentence = f"{shortened(text)!r} given: it must be 64 hexadecimal digits"
            raise invalid("value_error", f"Value error, {sentence}")
        return text.lower()


class UploadLinkSchema(RequestSchema):
    """What the upload that is to be prepared may bring."""

    sha256 = Sha256(
        metadata={
            "description": "Digest, in hexadecimal, of the only file that may be uploaded.",
            "example": SHA256_EXAMPLE,
        },
    )


class ListingSchema(RequestSchema):
    """Options of a listing."""

    show_dirs = Flag(load_default=True, metadata={"description": "Show directories."})
    recursive = Flag(load_default=False, metadata={"description": "Show what lies below, too."})
    details = Flag(
        load_default=False, metadata={"description": "Add `bytes`, `modified`, `etag`, `sha256`."}
    )
    limit = Whole(
        load_default=None,
        least=1,
        metadata={"description": "How many entries at most; `Link` names the next page."},
    )
    after = AnyText(
        load_default="", metadata={"description": "Show only entries whose path sorts later."}
    )


class UploadSchema(RequestSchema):
    """Options of an upload."""

    unpack = Flag(
        load_default=False,
        metadata={"description": "Store the members of the archive that the file is."},
    )


class RenameSchema(RequestSchema):
    """The target of a rename."""

    path = AnyText(required=True, metadata={"description": "New path, relative to the tree."})


class RequestToSendSchema(AnswerSchema):
    """The request that the client sends next, unchanged."""

    method = fields.String(metadata={"enum": ["get", "post"]})
    url = fields.String()
    headers = fields.Dict(keys=fields.String(), values=fields.String())
    data = fields.Dict(keys=fields.String(), values=fields.String())


# -- OpenAPI: examples, and parameters without a schema ------------------------------------------
DIRECTORY_EXAMPLE: Final = {"path": "data/x/", "type": "directory", "size": ""}
DOWNLOAD_EXAMPLE: Final = {
    "method": "get",
    "url": "https://api.example.org/files/data/x/f.csv/download",
    "headers": {"authorization": "Bearer eyJraWQiOi…"},
    "data": {},
}
UPLOAD_EXAMPLE: Final = {
    **DOWNLOAD_EXAMPLE,
    "method": "post",
    "url": "https://api.example.org/files/data/x/upload",
}
NOTHING: Final = {"type": ["object", "null"], "description": "Always null."}
"""The schema of `null`; generators of clients fail on the type `null` alone."""
_BINARY: Final = {"type": "string", "format": "binary"}
_BYTES: Final = {"schema": _BINARY}
UPLOAD_BODY: Final = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "sha256": {
                        "type": "string",
                        "default": "",  # else Swagger UI sends one that it makes up
                        "description": "SHA-256 of the file in hexadecimal: any other file is "
                        "refused.",
                    },
                    "file": _BINARY,
                },
            },
            "encoding": {
                "file": {
                    "headers": {
                        name: {
                            "description": "Digest of the file (RFC 9530): any other file is "
                            "refused.",
                            "schema": {"type": "string"},
                            "example": repr_digest(SHA256_EXAMPLE),
                        }
                        for name in ("Repr-Digest", "Content-Digest")
                    }
                }
            },
        }
    },
}
_DIGEST_HEADER: Final = {"schema": {"type": "string"}, "example": repr_digest(SHA256_EXAMPLE)}
STORED: Final = {
    "description": "A file; with `unpack` a list of files.",
    "properties": {
        "path": {"type": "string"},
        "type": {"type": "string", "enum": ["file"]},
        "size": {"type": "string", "description": "For people."},
    },
    "required": ["path", "type", "size"],
    "items": {"$ref": "#/components/schemas/File"},
}
"""An object or an array. Of alternatives (`oneOf`), generators of clients would make another class
than that of a file."""
UPLOAD_RESPONSES: Final = {
    "201": {
        "description": "The stored file; with `unpack` a list of all of them, in the archive's "
        "order.",
        "headers": {
            "Repr-Digest": {
                "description": "SHA-256 of the stored file (RFC 9530); none with `unpack`.",
                **_DIGEST_HEADER,
            }
        },
        "content": {
            "application/json": {
                "schema": STORED,
                "examples": {
                    "file": {"value": FILE_EXAMPLE},
                    "unpack": {"value": [{**FILE_EXAMPLE, "path": "data/x/exp1/f.csv"}]},
                },
            }
        },
    }
}
_DIGEST_HEADERS: Final = {
    "Repr-Digest": {
        "description": "SHA-256 of the whole file (RFC 9530), if it is wanted and known.",
        **_DIGEST_HEADER,
    }
}
DOWNLOAD_RESPONSES: Final = {
    "200": {
        "description": "The bytes, as an attachment.",
        "headers": _DIGEST_HEADERS,
        "content": {"application/octet-stream": _BYTES, "application/zip": _BYTES, "*/*": _BYTES},
    },
    "206": {
        "description": "The parts that `Range` names.",
        "headers": _DIGEST_HEADERS,
        "content": {
            "application/octet-stream": _BYTES,
            "multipart/byteranges": _BYTES,
            "*/*": _BYTES,
        },
    },
    "304": {"description": "The client's copy is current."},
}
FILE_PATH_PARAMETER: Final = {
    "in": "path",
    "name": "file_path",
    "required": True,
    "schema": {"type": "string"},
    "description": "File or directory in the caller's tree; a directory with or without a slash.",
    "example": "data/x/f.csv",
}


def header_parameter(name: str, description: str, example: str) -> dict[str, Any]:
    """A header that the handler reads itself, as an OpenAPI parameter."""
    return {
        "in": "header",
        "name": name,
        "schema": {"type": "string"},
        "description": description,
        "example": example,
    }


CONDITION_HEADERS: Final = [
    header_parameter("Range", "Parts of the file to send; not for directories.", "bytes=0-1023"),
    header_parameter(
        "If-Range", "Send parts only of this version, else all of it.", '"18eb197b-13"'
    ),
    header_parameter(
        "If-None-Match", "Send nothing if this is the version still.", '"18eb197b-13"'
    ),
    header_parameter("If-Match", "Send only this version; `*`: any.", "*"),
    header_parameter(
        "If-Modified-Since", "Send only what changed.", "Thu, 01 Jan 2026 12:00:00 GMT"
    ),
    header_parameter(
        "If-Unmodified-Since", "Send only if unchanged.", "Fri, 31 Dec 2100 12:00:00 GMT"
    ),
]
WANTED_DIGEST: Final = header_parameter(
    WANT_REPR_DIGEST,
    "`sha-256=1`: answer with the file's digest (RFC 9530), which is computed if it is not known "
    "and the file lies on this service's disk.",
    "sha-256=1",
)
