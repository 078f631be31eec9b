"""What `/openapi.json` says of `/files` beside its schemas: examples, and parameters that handlers
read by themselves."""

from typing import Any, Final

FILE: Final = {"path": "data/x/f.csv", "type": "file", "size": "19 Bytes"}
DIRECTORY: Final = {"path": "data/x/", "type": "directory", "size": ""}
UPLOAD_EXAMPLE: Final = {
    "method": "post",
    "url": "https://api.example.org/files/data/x/upload",
    "headers": {"authorization": "Bearer eyJraWQiOi…"},
    "data": {},
}
DOWNLOAD_EXAMPLE: Final = {
    "method": "get",
    "url": "https://api.example.org/files/data/x/f.csv/download",
    "headers": {"authorization": "Bearer eyJraWQiOi…"},
    "data": {},
}
BYTES: Final = {"schema": {"type": "string", "format": "binary"}}
FILE_PATH: Final = {
    "in": "path",
    "name": "file_path",
    "required": True,
    "schema": {"type": "string"},
    "description": "File or directory in the caller's tree; a directory with a slash or without.",
    "example": "data/x/f.csv",
}


def header(name: str, description: str, example: str) -> dict[str, Any]:
    """A parameter, for the documentation alone."""
    return {
        "in": "header",
        "name": name,
        "schema": {"type": "string"},
        "description": description,
        "example": example,
    }


CONDITIONS: Final = [
    header("Range", "Parts of the file to send; not for directories.", "bytes=0-1023"),
    header("If-Range", "Send parts only of this version, else all of it.", '"18eb197b-13"'),
    header("If-None-Match", "Send nothing if this is the version still.", '"18eb197b-13"'),
    header("If-Match", "Send only this version; `*`: any.", "*"),
    header("If-Modified-Since", "Send only what changed.", "Thu, 01 Jan 2026 12:00:00 GMT"),
    header("If-Unmodified-Since", "Send only if unchanged.", "Fri, 31 Dec 2100 12:00:00 GMT"),
]
