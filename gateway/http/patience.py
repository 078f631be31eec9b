"""For how long a connection waits for its client.

aiohttp waits an hour for the head of a request, and for ever for the rest of its body and for the
client to take its answer. So every connection is looked at now and then: one whose client owes
something, and has not moved for `seconds`, is given up. A transfer may take as long as it likes
while bytes move. There is no public hook for any of this.
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

_LOOKS: Final = 4
"""How often a connection is looked at within the time that its client has."""

log = get_logger()


class Watched(Protocol):
    """A connection: aiohttp's, and whether a part of a head has come on it."""

    is_in_head: bool
    _current_request: web.BaseRequest | None
    _reading_paused: bool
    _request_count: int


class Patience:
    """Watches one connection from when it is made until `end`."""

    def __init__(self, connection: Watched, transport: asyncio.Transport, seconds: float) -> None:
        self._connection = connection
        self._transport = transport
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._seen: tuple[str, Hashable] | None = None
        self._since = 0.0
        self._timer = self._loop.call_later(seconds / _LOOKS, self._look)

    def end(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        owed = self._owed()
        if owed is None or owed != self._seen:
            self._seen, self._since = owed, now
        elif now - self._since >= self._seconds:
            self._give_up(owed[0])
        self._timer = self._loop.call_later(self._seconds / _LOOKS, self._look)

    def _owed(self) -> tuple[str, Hashable] | None:
        """What the connection waits for its client to do, and how far the client has got."""
        connection, request = self._connection, self._connection._current_request  # noqa: SLF001
        if waiting := self._transport.get_write_buffer_size():
            written = request.writer.output_size if request is not None else 0
            return "answer", written - waiting - self._unacknowledged()
        if request is not None:
            body = request.content
            # where we do not read, it is not the client that is slow
            if body.is_eof() or connection._reading_paused:  # noqa: SLF001
                return None
            return "body", body.total_bytes
        if connection.is_in_head or not connection._request_count:  # noqa: SLF001
            return "head", connection._request_count  # noqa: SLF001
        return None

    def _unacknowledged(self) -> int:
        """Bytes that the system has taken from us, and the client not yet from the system."""
        found = self._transport.get_extra_info("socket")
        try:
            answer = fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, bytes(4))
        except (AttributeError, OSError):
            return 0
        return int(struct.unpack("i", answer)[0])

    def _give_up(self, owed: str) -> None:
        request = self._connection._current_request  # noqa: SLF001
        log.info("client.given_up", owed=owed, path=request.path if request else None)
        if owed == "body" and request is not None:
            request.content.set_exception(TooSlow("The body did not come in time"))
            self._seen = None
        else:
            self._transport.abort()
