"""Connections: what fails outside of the middlewares is answered in JSON as well, and no client is
waited for for ever.

aiohttp answers a request that it cannot parse in plain text, and logs it with a traceback that
shows what was sent, tokens included. There is no public hook for either.
"""

import asyncio
import traceback
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from common.telemetry.logs import get_logger
from gateway.http.errors import TooSlow, detail_response, response_for
from gateway.http.patience import Patience

_TOO_LONG: Final = "The request line or a header is too long"
_NOT_HTTP: Final = "The request is not valid HTTP"

_MAX_LINE: Final = 32_768
"""Bytes of the request line, or of one header: a long path in percent-escapes, a browser's cookies
with a token among them. aiohttp's 8 190 are too few for either."""

log = get_logger()


class _Connection(RequestHandler):
    __slots__ = ("_client_timeout", "_patience", "is_in_head")

    def __init__(self, *args: Any, client_timeout: float, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.is_in_head = False
        self._client_timeout = client_timeout
        self._patience: Patience | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._client_timeout:
            self._patience = Patience(
                self, cast("asyncio.Transport", transport), self._client_timeout
            )

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        self.is_in_head = waiter is not None and not waiter.done()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._patience is not None:
            self._patience.end()
            self._patience = None
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may show what was sent
    ) -> web.StreamResponse:
        """The answer to what no handler has answered; the connection closes after it."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        if isinstance(exc, HttpProcessingError):
            log.info("request.unreadable", reason=type(exc).__name__)
            sentence = _TOO_LONG if isinstance(exc, LineTooLong) else _NOT_HTTP
            response = detail_response(status, sentence)
        else:
            if not isinstance(exc, ConnectionError):  # else the client went away
                log.error("request.failed", path=request.path, exc_info=exc)
            response = detail_response(500, "Internal Server Error")
        response.force_close()
        return response

    def log_exception(self, *args: Any, exc_info: Any = None, **kw: Any) -> None:
        """What broke a connection; the client's own mistakes are no news."""
        if not isinstance(exc_info, web.RequestPayloadError | ConnectionError | TooSlow):
            super().log_exception(*args, exc_info=exc_info, **kw)


def _let_go(error: BaseException) -> None:
    """Let go of what the calls behind an error held: pieces of files, whole bodies.

    The connection keeps the error, the error its traceback, and that the connection: a cycle, which
    would hold all this until the collector comes round.
    """
    traceback.clear_frames(error.__traceback__)
    error.__traceback__ = None


class _Server(web.Server):
    client_timeout = 0.0

    def __call__(self) -> RequestHandler:
        return _Connection(
            self, loop=self._loop, client_timeout=self.client_timeout, **self._kwargs
        )


def serve_with_care(app: web.Application, *, client_timeout: float) -> None:
    """Let the application's server make connections of the kind above.

    A client that owes something and does not move for `client_timeout` seconds (0: for however
    long) is given up.
    """
    make_server = app._make_handler  # noqa: SLF001

    def make_own_server(**options: Any) -> web.Server:
        made = make_server(**options)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await made.request_handler(request)
            except web.HTTPException as error:  # raised before any middleware: an unknown Expect
                response = response_for(error, request.method)
                if response is None:
                    raise
                return response
            except ConnectionError as error:
                _let_go(error)
                raise ConnectionResetError("the client went away") from None
            finally:
                if (broken := request.content.exception()) is not None:
                    _let_go(broken)

        options = {"max_line_size": _MAX_LINE, "max_field_size": _MAX_LINE, **made._kwargs}  # noqa: SLF001
        server = _Server(handle, request_factory=made.request_factory, **options)
        server.client_timeout = client_timeout
        return server

    app._make_handler = make_own_server  # type: ignore[method-assign] # noqa: SLF001
