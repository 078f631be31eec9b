"""Headers of requests and answers of `/uploads`, with their examples in `/openapi.json`."""

from typing import Any, Final

from gateway.http.openapi import InvalidSchema
from gateway.uploads.protocol import ALGORITHMS, EXTENSIONS, PORTION, VERSION

_EXAMPLES: Final = {
    "Upload-Length": "1073741824",
    "Upload-Offset": "8388608",
    "Upload-Metadata": "path ZGF0YS9leHAxL2ZyYW1lcy50aWY=",
    "Upload-Checksum": "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
    "Upload-Expires": "Fri, 02 Jan 2026 12:00:00 GMT",
    "Upload-Defer-Length": "1",
    "X-HTTP-Method-Override": "PATCH",
    "Tus-Resumable": VERSION,
    "Tus-Version": VERSION,
    "Tus-Extension": EXTENSIONS,
    "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
    "Tus-Max-Size": "1099511627776",
    "Location": "https://api.example.org/uploads/24e533e02ec3bc40c387f1a0e460e216",
    "Repr-Digest": "sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:",
    "ETag": '"18eb197b-13"',
}

_MEANINGS: Final = {
    "Upload-Length": "Size of the whole file in bytes.",
    "Upload-Offset": "How many bytes the service has: the offset of the next one.",
    "Upload-Metadata": "`path` (where the file is to be), or `dir` and `filename`, in base64; "
    "optionally `sha256`, in hexadecimal, of the whole file.",
    "Upload-Checksum": "Algorithm and checksum of the body, in base64.",
    "Upload-Expires": "When the upload expires unless more of it arrives.",
    "X-HTTP-Method-Override": "The method that counts, for clients that cannot send it.",
    "Tus-Resumable": "The protocol's version.",
    "Tus-Version": "The versions that the service supports.",
    "Tus-Extension": "The extensions that the service supports.",
    "Tus-Checksum-Algorithm": "The algorithms of `Upload-Checksum`.",
    "Tus-Max-Size": "The largest file in bytes; missing: no limit.",
    "Location": "The upload.",
    "Repr-Digest": "SHA-256 of the file (RFC 9530), once all of it is there.",
    "ETag": "Of the file, once all of it is there.",
}


_UPLOAD_ID: Final = {
    "in": "path",
    "name": "upload_id",
    "required": True,
    "schema": {"type": "string"},
    "description": "The last part of the upload's `Location`.",
    "example": "24e533e02ec3bc40c387f1a0e460e216",
}


def sent(*names: str, optional: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Headers of a request; those are required that are not `optional`."""
    return [
        {
            "in": "header",
            "name": name,
            "required": name not in optional,
            "schema": {"type": "string"},
            "description": _MEANINGS[name],
            "example": _EXAMPLES[name],
        }
        for name in (*names, *optional)
    ]


def of_one(*names: str, optional: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The parameters of a request about one upload."""
    return [_UPLOAD_ID, *sent(*names, optional=optional)]


def answered(description: str, *names: str) -> dict[str, Any]:
    """An answer without a body, with headers."""
    return {
        "description": description,
        "headers": {
            name: {
                "description": _MEANINGS[name],
                "schema": {"type": "string"},
                "example": _EXAMPLES[name],
            }
            for name in ("Tus-Resumable", *names)
        },
    }


INVALID: Final = {"description": "The request fails validation.", "schema": InvalidSchema}


def fault(name: str, message: str, kind: str) -> dict[str, Any]:
    """The example of a 422."""
    return {"detail": [{"loc": ["header", name], "msg": message, "type": kind}]}


PORTION_BODY: Final = {
    "required": True,
    "content": {PORTION: {"schema": {"type": "string", "format": "binary"}}},
}
FIRST_PORTION: Final = {**PORTION_BODY, "required": False}
