"""The stand-ins, a process of their own: a worker-facing API that answers at once and notes when
each submission came, and the user pool's key server.

`python -m benchmarks.standins --port 1234 --keys jwks.json`
"""

import argparse
import asyncio
import re
import time
from pathlib import Path
from typing import Final, cast

import orjson
import uvloop

from deploy.sandbox.ports import LOOPBACK

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_NUMBER = re.compile(rb'"job_id":\s*(\d+)')


class Arrivals:
    """When each number came, by the monotonic clock, which all processes share."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.moments: dict[int, float] = {}
        self.repeated = 0
        self.first = self.last = 0.0

    def note(self, number: int) -> None:
        now = time.monotonic()
        if not self.moments:
            self.first = now
        self.last = now
        if number in self.moments:
            self.repeated += 1
        else:
            self.moments[number] = now

    def summary(self) -> dict[str, float]:
        return {
            "count": len(self.moments),
            "repeated": self.repeated,
            "first": self.first,
            "last": self.last,
        }


class _Connection(asyncio.Protocol):
    """As little HTTP as the dispatcher and the gateway need."""

    def __init__(self, arrivals: Arrivals, keys: bytes) -> None:
        self._arrivals = arrivals
        self._keys = keys
        self._pending = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        data = self._pending + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(data, 0, end + 2)
            total = end + 4 + (int(found[1]) if found else 0)
            if len(data) < total:
                break
            self._transport.write(self._answer(data[:end], data[end + 4 : total]))
            data = data[total:]
        self._pending = data

    def _answer(self, head: bytes, body: bytes) -> bytes:
        method, target = head.split(b" ", 2)[:2]
        if method == b"POST":
            if number := _NUMBER.search(body):
                self._arrivals.note(int(number[1]))
            return _response(b"201 Created", body)
        if method == b"DELETE":
            self._arrivals.clear()
            return _response(b"200 OK", b"{}")
        return _response(b"200 OK", self._read(target))

    def _read(self, target: bytes) -> bytes:
        match target:
            case b"/jwks.json":
                return self._keys
            case b"/arrivals":
                return orjson.dumps(self._arrivals.moments, option=orjson.OPT_NON_STR_KEYS)
            case b"/summary":
                return orjson.dumps(self._arrivals.summary())
        return b"{}"


def _response(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


_BACKLOG: Final = 512


async def serve(port: int, keys: bytes) -> None:
    """Serve until the process is told to end."""
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(arrivals, keys), LOOPBACK, port, backlog=_BACKLOG
    )
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--keys", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.keys.read_bytes()))


if __name__ == "__main__":
    main()
