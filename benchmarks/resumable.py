"""A file sent by tus in chunks, over one blocking socket."""

import base64
import hashlib
import http.client
import os
import time
from dataclasses import KW_ONLY, dataclass
from http import HTTPStatus
from typing import Final

from benchmarks.messages import Endpoint
from benchmarks.results import Transfer
from benchmarks.transfer import TIMEOUT, BrokenTransfer

_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class Chunks:
    """A file of `size` bytes that is to be at `path`, in chunks of `chunk` bytes.

    `has_checksum`: each chunk has its SHA-256 in `Upload-Checksum`.
    """

    endpoint: Endpoint
    path: str
    _: KW_ONLY
    size: int
    chunk: int
    has_checksum: bool = False


def perform(upload: Chunks) -> Transfer:
    """Create the upload and send its chunks. Raises `BrokenTransfer`, `OSError`.

    What a client computes before it sends anything is not part of the time.
    """
    chunk = os.urandom(_PIECE) * (upload.chunk // _PIECE)
    digests = {
        end: _digest(chunk[:end])
        for end in {upload.chunk, upload.size % upload.chunk}
        if end and upload.has_checksum
    }
    address = (upload.endpoint.host, upload.endpoint.port)
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    began, first_answer = time.monotonic(), 0.0
    try:
        target = _create(connection, upload)
        for offset in range(0, upload.size, upload.chunk):
            end = min(upload.chunk, upload.size - offset)
            headers = {"Upload-Offset": str(offset), "Content-Length": str(end)} | digests.get(
                end, {}
            )
            pieces = (memoryview(chunk)[at : at + _PIECE] for at in range(0, end, _PIECE))
            _ask(connection, upload, "PATCH", target, headers, pieces)
            first_answer = first_answer or time.monotonic() - began
    except http.client.HTTPException as error:
        raise BrokenTransfer(f"{upload.path}: {error!r}") from error
    finally:
        connection.close()
    return Transfer(size=upload.size, seconds=time.monotonic() - began, first_byte=first_answer)


def _digest(chunk: bytes) -> dict[str, str]:
    return {"Upload-Checksum": f"sha256 {_base64(hashlib.sha256(chunk).digest())}"}


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _create(connection: http.client.HTTPConnection, upload: Chunks) -> str:
    """The path of a new upload's URL."""
    metadata = f"path {_base64(upload.path.encode())}"
    headers = {"Upload-Length": str(upload.size), "Upload-Metadata": metadata}
    answer = _ask(connection, upload, "POST", "/uploads", headers)
    return "/uploads/" + (answer.getheader("Location") or "").rpartition("/")[2]


def _ask(
    connection: http.client.HTTPConnection,
    upload: Chunks,
    method: str,
    target: str,
    headers: dict[str, str],
    body: object = b"",
) -> http.client.HTTPResponse:
    common = {
        **upload.endpoint.headers,
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/offset+octet-stream",
    }
    if method == "POST":
        del common["Content-Type"]
    connection.request(method, target, body, common | headers)  # type: ignore[arg-type]
    answer = connection.getresponse()
    text = answer.read()
    if answer.status not in {HTTPStatus.CREATED, HTTPStatus.NO_CONTENT}:
        raise BrokenTransfer(f"{method} {target}: {answer.status}: {text[:500]!r}")
    return answer
