"""The client of large transfers, a process of its own: plain sockets, so that it costs little.

`python -m benchmarks.transfer`: an errand as JSON in, the transfer's figures as JSON out.
"""

import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

_PIECE: Final = 1 << 20
_HEAD_END: Final = b"\r\n\r\n"
_LARGEST_HEAD: Final = 65_536
_TIMEOUT: Final = 300.0


class BrokenTransfer(Exception):
    """Not the answer that was expected, or not all of it."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A request, and the `size` bytes of its body that stand between `before` and `after`."""

    host: str
    port: int
    head: str
    status: int
    size: int = 0
    before: str = ""
    after: str = ""


def run(errand: Errand) -> dict[str, Any]:
    """Carry it out. Times in seconds, from the connection to the end of the answer."""
    filler = memoryview(os.urandom(_PIECE))
    began = time.monotonic()
    with socket.create_connection((errand.host, errand.port), timeout=_TIMEOUT) as connection:
        connection.sendall(errand.head.encode() + errand.before.encode())
        left = errand.size
        while left > 0:
            piece = filler[: min(left, _PIECE)]
            connection.sendall(piece)
            left -= len(piece)
        connection.sendall(errand.after.encode())
        first, size = _receive(connection, errand.status)
    ended = time.monotonic()
    return {"seconds": ended - began, "first": first - began, "size": errand.size or size}


def _receive(connection: socket.socket, status: int) -> tuple[float, int]:
    """Read an answer that ends with the connection: when its body began, and its size."""
    head = b""
    while _HEAD_END not in head:
        piece = connection.recv(_LARGEST_HEAD)
        if not piece or len(head) > _LARGEST_HEAD:
            raise BrokenTransfer(f"no answer: {head[:200]!r}")
        head += piece
    head, _, body = head.partition(_HEAD_END)
    if not head.startswith(b"HTTP/1.1 %d " % status):
        raise BrokenTransfer(f"not {status}: {head[:200]!r} {body[:500]!r}")
    buffer = bytearray(_PIECE)
    first = 0.0
    size, end = len(body), body[-5:]
    while True:
        if size and not first:
            first = time.monotonic()
        count = connection.recv_into(buffer)
        if not count:
            break
        size += count
        end = (end + buffer[max(0, count - 5) : count])[-5:]
    _check_whole(head, size, end)
    return first, size


def _check_whole(head: bytes, size: int, end: bytes) -> None:
    names = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    announced = names.get(b"content-length")
    if announced is not None and int(announced) != size:
        raise BrokenTransfer(f"{size} bytes instead of {int(announced)}")
    if names.get(b"transfer-encoding") == b"chunked" and end != b"0\r\n\r\n":
        raise BrokenTransfer(f"the answer breaks off after {size} bytes")


def main() -> None:
    errand = Errand(**orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(orjson.dumps(run(errand)))


def to_json(errand: Errand) -> bytes:
    """The errand as this module's process reads it."""
    return orjson.dumps(asdict(errand))


if __name__ == "__main__":
    main()
