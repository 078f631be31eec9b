"""The load generator: keep-alive connections that repeat prepared requests.

Each connection sends its next request when the last response is complete (closed loop), or all of
them together send at a given rate (open loop).
"""

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass
from itertools import cycle
from typing import Final, cast

import uvloop

from benchmarks.messages import COUNTER, Endpoint
from benchmarks.results import Sample

_TICK: Final = 0.001
_LAST_RESPONSES: Final = 30.0
_SHOWN: Final = 500

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_BODILESS: Final = frozenset({204, 304})
_LARGEST_HEAD: Final = 65_536


class UnexpectedResponse(Exception):
    """The server sent no HTTP, or another response than the one to measure."""


@dataclass(frozen=True)
class Load:
    """What to send. `rate` is in requests per second; without it the loop is closed.

    `keep` keeps the response bodies. Any status but `status` ends the run.
    """

    endpoint: Endpoint
    requests: list[bytes]
    status: int = 200
    connections: int = 32
    seconds: float = 3.0
    rate: float | None = None
    keep: bool = False


class ResponseReader:
    """Finds the end of one HTTP/1.1 response (RFC 9112). Requests are not pipelined."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_at = 0  # 0 while the head is incomplete
        self._end: int | None = None  # None if the body is chunked
        self._status = 0

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """Status and body once the response is complete. Raises `UnexpectedResponse`."""
        self._buffer += data
        if not self._body_at and (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            self._read_head(head_end)
        if not self._body_at and len(self._buffer) > _LARGEST_HEAD:
            raise UnexpectedResponse("the head has no end")
        if not self._body_at or (self._end is not None and len(self._buffer) < self._end):
            return None
        body = self._buffer[self._body_at : self._end] if self._end else self._join_chunks()
        return None if body is None else (self._status, bytes(body))

    def _read_head(self, end: int) -> None:
        if not self._buffer.startswith(b"HTTP/1.1 "):
            raise UnexpectedResponse(f"no HTTP: {bytes(self._buffer[:80])!r}")
        self._status, self._body_at = int(self._buffer[9:12]), end + 4
        if found := _LENGTH.search(self._buffer, 0, end):
            self._end = self._body_at + int(found[1])
        elif self._status in _BODILESS:
            self._end = self._body_at
        elif not _CHUNKED.search(self._buffer, 0, end):
            raise UnexpectedResponse(f"no length: {bytes(self._buffer[:end])!r}")

    def _join_chunks(self) -> bytearray | None:
        if not self._buffer.endswith(b"0\r\n\r\n"):
            return None
        position, chunks = self._body_at, bytearray()
        while (end := self._buffer.find(b"\r\n", position)) >= 0:
            size = int(self._buffer[position:end].partition(b";")[0], 16)
            if not size:
                return chunks
            chunks += self._buffer[end + 2 : end + 2 + size]
            position = end + size + 4
        return None


class _Connection(asyncio.Protocol):
    """A connection with at most one outstanding request."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._reader = ResponseReader()
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes, now: float) -> None:
        self._began = now
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            if response := self._reader.feed(data):
                self._reader = ResponseReader()
                self._run.on_response(self, *response, self._began)
        except Exception as error:  # noqa: BLE001 - ends the run
            self._run.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(exc or ConnectionError("the server closed a connection"))


class _Run:
    """All connections, until the time is over and the last response is complete."""

    def __init__(self, load: Load, first_number: int) -> None:
        self.sample = Sample()
        self._load = load
        self._requests = cycle([request.split(COUNTER) for request in load.requests])
        self._number = first_number
        self._began = self._ends = 0.0
        self._outstanding = self._sent = 0
        self._idle: deque[_Connection] = deque()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def drive(self) -> Sample:
        loop, load = asyncio.get_running_loop(), self._load
        connections = []
        for _ in range(load.connections):
            address = (load.endpoint.host, load.endpoint.port)
            _, connection = await loop.create_connection(lambda: _Connection(self), *address)
            connections.append(connection)
        self._began = time.monotonic()
        self._ends = self._began + load.seconds
        self._idle.extend(connections)
        self._send_due()
        try:
            await asyncio.wait_for(self._over, load.seconds + _LAST_RESPONSES)
        except TimeoutError:
            missing = f"{self._outstanding} of {self._sent} requests had no response"
            raise UnexpectedResponse(missing) from None
        finally:
            self._over.cancel()
            for connection in connections:
                connection.transport.abort()
        return self.sample

    def _next(self) -> bytes:
        parts = next(self._requests)
        if len(parts) == 1:
            return parts[0]
        self._number += 1
        return f"{self._number:010d}".encode().join(parts)

    def _send(self, connection: _Connection, now: float) -> None:
        self._outstanding += 1
        self._sent += 1
        connection.send(self._next(), now)

    def _send_due(self) -> None:
        now = time.monotonic()
        if now >= self._ends:
            self._finish_if_idle(now)
            return
        rate = self._load.rate
        due = len(self._idle) if rate is None else int((now - self._began) * rate) + 1 - self._sent
        while due > 0 and self._idle:
            self._send(self._idle.popleft(), now)
            due -= 1
        if rate is not None:
            asyncio.get_running_loop().call_later(_TICK, self._send_due)

    def on_response(self, connection: _Connection, status: int, body: bytes, began: float) -> None:
        now = time.monotonic()
        if status != self._load.status:
            wrong = f"status {status} instead of {self._load.status}: {body[:_SHOWN]!r}"
            raise UnexpectedResponse(wrong)
        self.sample.count += 1
        self.sample.latencies.append(now - began)
        if self._load.keep:
            self.sample.kept.append((now, body.decode()))
        self._outstanding -= 1
        if now >= self._ends:
            self._finish_if_idle(now)
        elif self._load.rate is None:
            self._send(connection, now)
        else:
            self._idle.append(connection)

    def _finish_if_idle(self, now: float) -> None:
        if not self._outstanding and not self._over.done():
            self.sample.seconds = now - self._began
            self._over.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


async def drive(load: Load, *, first_number: int = 0) -> Sample:
    """Send the load. Raises `UnexpectedResponse`, `OSError`."""
    return await _Run(load, first_number).drive()


def drive_apart(load: Load) -> Sample:
    """The same on an event loop of its own, with numbers that no other run uses."""
    # one number per 100 µs of the clock, which is above any rate
    return uvloop.run(drive(load, first_number=int(time.time() * 10_000) % 10**10))
