"""Stand-ins that cost little: a worker-facing API and a Mailjet that accept everything and record
its arrival, and the user pool's key server; over TLS as well at a second port, if one is given.

`python -m benchmarks.standins PORT jwks.json [TLS_PORT certificate.pem]`
"""

import asyncio
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Final, cast

import orjson
import uvloop

from deploy.sandbox.ports import LOOPBACK

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_NUMBER: Final = re.compile(rb'"job_id":\s*(\d+)')
_BACKLOG: Final = 512


class Arrivals:
    """When each number, a delivery's or a mail's, arrived first, by all processes' same clock."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.times: dict[int, float] = {}
        self.repeated = 0

    def record(self, number: int) -> None:
        if self.times.setdefault(number, now := time.monotonic()) != now:
            self.repeated += 1

    def summary(self) -> dict[str, float]:
        times = self.times.values()  # in the order of arrival
        first, last = next(iter(times), 0.0), next(reversed(times), 0.0)
        return {"count": len(times), "repeated": self.repeated, "first": first, "last": last}


class _Connection(asyncio.Protocol):
    """As little HTTP as the dispatcher and the gateway need."""

    def __init__(self, arrivals: Arrivals, keys: bytes) -> None:
        self._arrivals = arrivals
        self._keys = keys
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._pending + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(data, 0, end + 2)
            total = end + 4 + (int(found[1]) if found else 0)
            if len(data) < total:
                break
            self._transport.write(self._respond(data[:end], data[end + 4 : total]))
            data = data[total:]
        self._pending = data

    def _respond(self, head: bytes, body: bytes) -> bytes:
        arrivals, found = self._arrivals, b"{}"
        match head.split(b" ", 2)[:2]:
            case b"POST", b"/v3.1/send":
                sent = [message["CustomID"] for message in orjson.loads(body)["Messages"]]
                for name in sent:
                    arrivals.record(int(name))
                results = [{"Status": "success", "CustomID": name} for name in sent]
                found = orjson.dumps({"Messages": results})
            case b"POST", _:
                if number := _NUMBER.search(body):
                    arrivals.record(int(number[1]))
                return _response(b"201 Created", body)
            case b"DELETE", _:
                arrivals.clear()
            case _, b"/jwks.json":
                found = self._keys
            case _, b"/arrivals":
                found = orjson.dumps(arrivals.times, option=orjson.OPT_NON_STR_KEYS)
            case _, b"/summary":
                found = orjson.dumps(arrivals.summary())
        return _response(b"200 OK", found)


def _response(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


async def serve(port: int, keys: bytes, *secure: str) -> None:
    """Serve until the process ends."""
    arrivals, loop = Arrivals(), asyncio.get_running_loop()

    def connection() -> asyncio.Protocol:
        return _Connection(arrivals, keys)

    if secure:
        tls_port, certificate = secure
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
        await loop.create_server(connection, LOOPBACK, int(tls_port), backlog=_BACKLOG, ssl=tls)
    server = await loop.create_server(connection, LOOPBACK, port, backlog=_BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    _, own_port, key_file, *rest = sys.argv
    uvloop.run(serve(int(own_port), Path(key_file).read_bytes(), *rest))
