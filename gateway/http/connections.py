"""The clients' connections of a process: few of one address, and idle ones give way to new ones.

Idle is a connection without a request under way: one that is kept alive, or whose head is not
complete. The addresses of trusted proxies are those of all their clients, so they have no limit.
"""

import asyncio
import copy
import resource
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol, Self

from common.telemetry.logs import get_logger
from gateway.http.client_address import TrustedProxies
from gateway.http.limits import Caller
from gateway.metrics import CONNECTIONS, CONNECTIONS_CLOSED
from gateway.settings import ConnectionLimits

_RESERVE: Final = 4
"""One of so many file handles is kept for files, the database and S3; at most `_MOST_RESERVED`."""

_MOST_RESERVED: Final = 1_024

_CLOSED_AT_ONCE: Final = 8
"""Idle connections that one new connection displaces at most."""

_LOG_EVERY: Final = 1.0

log = get_logger()


class Connection(Protocol):
    """What is limited."""

    in_head: bool

    def force_close(self) -> None: ...


class Connections:
    """Counts connections, and closes those that have to give way."""

    def __init__(self, limits: ConnectionLimits, proxies: TrustedProxies) -> None:
        self._limits = limits
        self._proxies = proxies
        self._gives_way = True
        self._all: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # the longest first
        self._callers: dict[Connection, Caller] = {}
        self._of_caller: dict[Caller, dict[Connection, None]] = {}
        self._leaving: set[Connection] = set()  # closed here, their handles perhaps still open
        self._closed = Counter[str]()

    def protected(self) -> Self:
        """For clients whose connections have no limit and never give way, as others do for them."""
        protected = copy.copy(self)
        protected._gives_way = False  # noqa: SLF001 - of our own class
        return protected

    def export(self) -> None:
        """Export the connections as metrics, read when they are scraped."""
        CONNECTIONS.labels("idle").set_function(lambda: len(self._idle))
        CONNECTIONS.labels("busy").set_function(lambda: len(self._all) - len(self._idle))

    def add(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """A new connection; it may close others, or be closed itself where none gives way."""
        self._all.add(connection)
        self._make_room(connection, transport)
        if not self._gives_way or connection in self._leaving:
            return
        self._idle[connection] = None
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else None
        if address is None or self._proxies.trusts(address):
            return
        caller = self._callers[connection] = self._proxies.client(address).caller
        theirs = self._of_caller.setdefault(caller, {})
        theirs[connection] = None
        most = self._limits.per_address
        if most and len(theirs) > most:
            idle = (other for other in theirs if other in self._idle)
            self._close("connections", idle, 1)
        self.check_heads(connection)

    def check_heads(self, connection: Connection) -> None:
        """A head begins: close the oldest unfinished one of an address with too many."""
        most = self._limits.heads_per_address
        if len(self._all) <= most:
            return
        theirs = self._of_caller.get(self._callers.get(connection, _NOBODY))
        if theirs is not None and 0 < most < len(theirs):
            unfinished = [other for other in theirs if other.in_head and other in self._idle]
            self._close("heads", unfinished, len(unfinished) - most)

    def begin(self, connection: Connection) -> None:
        """A request of the connection begins."""
        self._idle.pop(connection, None)

    def end(self, connection: Connection) -> None:
        """The request has ended."""
        if self._gives_way and connection in self._all:
            self._idle[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection is lost."""
        self._all.discard(connection)
        self._leaving.discard(connection)
        self._idle.pop(connection, None)
        caller = self._callers.pop(connection, None)
        if caller is not None:
            theirs = self._of_caller[caller]
            del theirs[connection]
            if not theirs:
                del self._of_caller[caller]

    def _make_room(self, connection: Connection, transport: asyncio.BaseTransport) -> None:
        """Close idle connections where few file handles are left.

        The system gives the lowest free number to a new handle: all below this one are in use.
        """
        used = transport.get_extra_info("socket").fileno()
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most == resource.RLIM_INFINITY:
            return
        reserved = min(_MOST_RESERVED, most // _RESERVE)
        if (excess := used - (most - reserved) - len(self._leaving)) >= 0:
            closed = self._close("handles", self._idle, min(excess + 1, _CLOSED_AT_ONCE))
            if not closed and excess > reserved // 2:
                self._close("handles", [connection], 1)

    def _close(self, reason: str, candidates: Iterable[Connection], count: int) -> int:
        """Close the first of the candidates; returns how many."""
        leaving = [connection for connection, _ in zip(candidates, range(count), strict=False)]
        for connection in leaving:
            self._idle.pop(connection, None)
            self._leaving.add(connection)
            connection.force_close()
        if leaving:
            CONNECTIONS_CLOSED.labels(reason).inc(len(leaving))
            if not self._closed:
                asyncio.get_running_loop().call_later(_LOG_EVERY, self._log_closed)
            self._closed[reason] += len(leaving)
        return len(leaving)

    def _log_closed(self) -> None:
        for reason, count in self._closed.items():
            log.warning("connections.closed", reason=reason, count=count)
        self._closed.clear()


_NOBODY: Final = Caller("")
