"""Requests with a large body in one direction, over blocking sockets, which cost little."""

import http.client
import os
import time
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.messages import Endpoint, form_parts
from benchmarks.results import Transfer

_CHUNK: Final = 1 << 20
TIMEOUT: Final = 600.0


class BrokenTransfer(Exception):
    """Another status than the expected one, or an incomplete response."""


@dataclass(frozen=True)
class Request:
    """`upload` is the size in bytes of a file to send in a form; without it the body is `json`.

    `file`: what is sent, instead of random bytes.
    """

    endpoint: Endpoint
    method: str
    target: str
    _: KW_ONLY
    status: int = 200
    upload: int = 0
    file: Path | None = None
    json: Any = None


def perform(request: Request) -> Transfer:
    """Perform a request and read the response. Raises `BrokenTransfer`, `OSError`.

    The size is that of the upload, else that of the response's body.
    """
    began, address = time.monotonic(), (request.endpoint.host, request.endpoint.port)
    connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
    try:
        _send(connection, request)
        first_byte, size = _read(connection.getresponse(), request)
    except http.client.HTTPException as error:
        raise BrokenTransfer(f"{request.method} {request.target}: {error!r}") from error
    finally:
        connection.close()
    seconds, size = time.monotonic() - began, request.upload or size
    return Transfer(size=size, seconds=seconds, first_byte=first_byte - began)


def _send(connection: http.client.HTTPConnection, request: Request) -> None:
    headers = dict(request.endpoint.headers)
    if not request.upload:
        body = b"" if request.json is None else orjson.dumps(request.json)
        headers["Content-Type"] = "application/json"
        connection.request(request.method, request.target, body, headers)
        return
    before, after, headers["Content-Type"] = form_parts("large.bin")
    headers["Content-Length"] = str(len(before) + request.upload + len(after))
    content = _chunks_of(request.file) if request.file else _random(request.upload)
    parts = chain([before], content, [after])
    connection.request(request.method, request.target, parts, headers)


def _random(size: int) -> Iterator[bytes]:
    filler = os.urandom(_CHUNK)
    whole, rest = divmod(size, _CHUNK)
    return chain(repeat(filler, whole), [filler[:rest]])


def _chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _read(response: http.client.HTTPResponse, request: Request) -> tuple[float, int]:
    """When the body began, and its size."""
    if response.status != request.status:
        reason = f"{response.status} instead of {request.status}: {response.read(_CHUNK)[:500]!r}"
        raise BrokenTransfer(f"{request.method} {request.target}: {reason}")
    size = len(response.read(1))
    first_byte = time.monotonic()
    buffer = bytearray(_CHUNK)
    while count := response.readinto(buffer):
        size += count
    if response.length:  # `readinto` does not raise for a body that ends early
        raise BrokenTransfer(f"{request.target}: {response.length} bytes are missing")
    return first_byte, size
