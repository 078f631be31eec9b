"""The client time-out: what a connection waits for its client to do must make progress.

aiohttp waits an hour for the head of a request, and without limit for the rest of its body and for
the client to take its answer. A transfer may take any time while its bytes move; a head has to be
complete within the time-out.
"""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Hashable
from typing import Final, Protocol

from aiohttp import web

from common.telemetry.logs import get_logger
from gateway.http.errors import TooSlow

_CHECKS: Final = 4
"""Checks of a connection per time-out."""

log = get_logger()


class Progress(Protocol):
    """How far a connection's current request is."""

    in_head: bool
    request: web.BaseRequest | None
    requests: int

    @property
    def written(self) -> int: ...


class ClientTimeout:
    """Gives up the client of one connection after `seconds` without progress, until `stop`.

    An overdue body raises `TooSlow` in its reader, so that the client gets a 408; a client
    that owes a head or does not take its answer loses the connection.
    """

    def __init__(self, connection: Progress, transport: asyncio.Transport, seconds: float) -> None:
        self._connection = connection
        self._transport = transport
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._owed: tuple[str, Hashable] | None = None
        self._since = 0.0
        self._timer = self._loop.call_later(seconds / _CHECKS, self._check)

    def stop(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        owed = self._find_owed()
        if owed is None or owed != self._owed:
            self._owed, self._since = owed, now
        elif now - self._since >= self._seconds:
            self._give_up(owed[0])
        self._timer = self._loop.call_later(self._seconds / _CHECKS, self._check)

    def _find_owed(self) -> tuple[str, Hashable] | None:
        """What the connection waits for its client to do, and the client's progress with it."""
        connection, request = self._connection, self._connection.request
        if waiting := self._transport.get_write_buffer_size():
            return "answer", connection.written - waiting - _unacknowledged(self._transport)
        if request is None:
            return ("head", connection.requests) if connection.in_head else None
        body = request.content
        if body.is_eof() or body.exception() is not None or not self._transport.is_reading():
            return None  # it is complete or given up, or it is the handler that is slow
        return "body", body.total_bytes

    def _give_up(self, owed: str) -> None:
        request = self._connection.request
        log.info("client.given_up", owed=owed, path=request.path if request else None)
        if owed == "body" and request is not None:
            request.content.set_exception(TooSlow("The body did not come in time"))
            self._owed = None
        else:
            self._transport.abort()


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the system's send buffer that the client has not acknowledged."""
    found = transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError):
        return 0
    return int(struct.unpack("i", answer)[0])
