"""The server: what aiohttp answers before any handler is JSON as well, and clients have a time-out.

aiohttp answers a request that it cannot parse in plain text, and logs it with a traceback that
shows what was sent, tokens included.
"""

import asyncio
import traceback
from typing import Any, Final, cast

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from common.telemetry.logs import get_logger
from gateway.http.client_timeout import ClientTimeout
from gateway.http.connections import Connections
from gateway.http.disconnects import CancelsUnwanted
from gateway.http.errors import TooSlow, detail_response, response_for
from gateway.http.keys import CONNECTIONS
from gateway.http.middlewares import complete_head
from gateway.http.security import SERVER

_MAX_LINE: Final = 32_768
"""Bytes of the request line, or of one header. aiohttp's 8 190 are too few for a long path in
percent-escapes, and for a browser's cookies with a token among them."""

_MAX_HEAD: Final = 65_536
"""Bytes of a whole head. aiohttp bounds lines and their number: 4 MiB for anybody who connects."""

_MAX_SLASHES: Final = 4_200
"""Slashes of a path: more than the storages take. aiohttp looks for the route of a path segment by
segment, in time that grows with the square of their number."""

_MAX_DIGITS: Final = 32
"""Digits of a `Content-Length`. aiohttp's parser takes any number of zeros before it; Python reads
no more than 4 300 of them."""

_NO_HEADER: Final = b"\r\n\0\r\n"
"""What no parser takes within a head."""

_INVALID: Final = "The request is not valid HTTP"

log = get_logger()


class Connection(CancelsUnwanted, web.RequestHandler):
    """One client's connection, and how far its current request is.

    `in_head` is true from the first byte of a head to the start of its request, and on a new
    connection. A head counts from the first byte that follows in a segment of its own: where a
    segment ends one request and begins the next, the connection is idle until more arrives.
    """

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self.request: web.BaseRequest | None = None
        self.requests = 0
        self.in_head = True
        self._head_bytes = 0
        self._head_is_too_long = False
        self._body: StreamReader = EMPTY_PAYLOAD
        self._writer: AbstractStreamWriter | None = None
        self._seconds = server.client_timeout
        self._client_timeout: ClientTimeout | None = None
        self._connections = server.open_connections

    @property
    def has_queued(self) -> bool:
        """Whether the head of another request has arrived already."""
        return self._request_count > self.requests

    @property
    def written(self) -> int:
        """Bytes of the latest answer, those that the client has not taken yet included."""
        return self._writer.output_size if self._writer is not None else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._seconds:
            self._client_timeout = ClientTimeout(
                self, cast("asyncio.Transport", transport), self._seconds
            )
        self._connections.add(self, transport)

    def data_received(self, data: bytes) -> None:
        if self._head_is_too_long:
            return
        if data and self._body.is_eof():  # else it belongs to a body, refused ones included
            if not self.in_head:
                self.in_head = True
                self._connections.check_heads(self)
            if self._request_count == self.requests:  # else it may be the body of a queued request
                self._head_bytes += len(data)
                if self._head_bytes > _MAX_HEAD:
                    self._receive_long(data)
                    return
        self._receive(data)

    def _receive_long(self, data: bytes) -> None:
        """Pass on no more than a head may have, and the rest once the head is complete."""
        room = len(data) - (self._head_bytes - _MAX_HEAD)
        if self._receive(data[:room]):
            self._receive(data[room:])
        else:
            self._head_is_too_long = True
            super().data_received(_NO_HEADER)

    def _receive(self, data: bytes) -> bool:
        """Pass on to the parser; whether this completes a head."""
        complete = self._request_count
        super().data_received(data)
        if self._request_count == complete:
            return False
        self._head_bytes = 0
        return True

    def begin(self, request: web.BaseRequest) -> None:
        """A head is complete, and its request starts."""
        self.in_head = False
        self.requests += 1
        self.request = request
        self._body, self._writer = request.content, request.writer
        self._connections.begin(self)

    def end(self) -> None:
        """The request's handler has ended; the answer may still be on its way."""
        self.request = None
        self._connections.end(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.remove(self)
        self.disconnected()
        if self._client_timeout is not None:
            self._client_timeout.stop()
        # these refer to the connection, which is freed at once without them, else by the collector
        self._client_timeout, self._body, self._writer = None, EMPTY_PAYLOAD, None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may show what was sent
    ) -> web.StreamResponse:
        """The answer where no handler gave one; the connection closes after it."""
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has been sent")
        if isinstance(exc, HttpProcessingError):
            _break_cycle(exc)
            if self._head_is_too_long:
                status, sentence = 431, f"A request's head may have at most {_MAX_HEAD} bytes"
            elif isinstance(exc, LineTooLong):
                sentence = "The request line or a header is too long"
            else:
                sentence = _INVALID
            return _refuse(status, sentence, type(exc).__name__)
        if not isinstance(exc, ConnectionError):  # else the client is gone
            log.error("request.failed", path=request.path, exc_info=exc)
        return _closing(500, "Internal Server Error")

    def log_exception(self, *args: Any, exc_info: Any = None, **kw: Any) -> None:
        """Log what broke the connection unless it is the client's fault."""
        if not isinstance(exc_info, web.RequestPayloadError | ConnectionError | TooSlow):
            super().log_exception(*args, exc_info=exc_info, **kw)


def _refuse_unusual(request: web.BaseRequest) -> web.Response | None:
    """The answer to a head that aiohttp's parser takes, but cannot be handled, or not soon."""
    most, target = _MAX_SLASHES, request.raw_path
    if len(target) > most and target.partition("?")[0].count("/") > most:
        return _refuse(414, f"A path may have at most {most} slashes", "Slashes")
    if len(request.headers.get(hdrs.CONTENT_LENGTH, "")) > _MAX_DIGITS:
        return _refuse(400, _INVALID, "LongLength")
    if not request.headers.get(hdrs.EXPECT, "").isascii():  # aiohttp's refusal would quote it
        return _refuse(400, _INVALID, "Expect")
    return None


def _refuse(status: int, sentence: str, reason: str) -> web.Response:
    log.info("request.unreadable", reason=reason, status=status)
    return _closing(status, sentence)


def _closing(status: int, sentence: str) -> web.Response:
    """An answer that no middleware completes, and after which the connection closes."""
    response = detail_response(status, sentence)
    response.headers[hdrs.SERVER] = SERVER
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.force_close()
    return response


class Server(web.Server):
    """Makes connections of the kind above for the requests of another server."""

    def __init__(
        self, inner: web.Server, *, client_timeout: float, connections: Connections
    ) -> None:
        super().__init__(self._handle, request_factory=inner.request_factory)
        self._answer = inner.request_handler
        self.client_timeout = client_timeout
        self.open_connections = connections

    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.begin(request)
        try:
            if connection.has_queued:  # since Python 3.12, what never waits would keep the loop
                await asyncio.sleep(0)
            if (refusal := _refuse_unusual(request)) is not None:
                return refusal
            return await self._answer(request)
        except web.HTTPException as error:  # raised before any middleware: an unknown Expect
            response = response_for(error, request.method)
            if response is None:
                raise
            complete_head(cast("web.Request", request), response)
            return response
        except asyncio.CancelledError as error:
            _break_cycle(error)
            raise
        except ConnectionError as error:
            _break_cycle(error)
            raise ConnectionResetError("the client is gone") from None
        finally:
            connection.end()
            if (broken := request.content.exception()) is not None:
                _break_cycle(broken)


def _break_cycle(error: BaseException) -> None:
    """Free what the frames behind an error hold: chunks of files, whole bodies.

    The connection refers to the error, its traceback to the frames, and they to the connection:
    a cycle that would hold all this until the next garbage collection.
    """
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


class Runner(web.AppRunner):
    """Serves an application by a `Server`."""

    def __init__(self, app: web.Application, *, client_timeout: float, **options: Any) -> None:
        super().__init__(app, **options)
        self._client_timeout = client_timeout

    async def _make_server(self) -> web.Server:
        """aiohttp's hook for the server's class; private (docs/adr/0011-aiohttp-internals.md)."""
        return Server(
            await super()._make_server(),
            client_timeout=self._client_timeout,
            connections=self.app[CONNECTIONS],
        )
