"""Connections: what fails outside of the middlewares is answered in JSON as well.

aiohttp answers a request that it cannot parse in plain text, and logs it with a traceback that
shows what was sent, tokens included. There is no public hook for either.
"""

from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from common.logs import get_logger
from gateway.errors import detail_response, response_for

_TOO_LONG: Final = "The request line or a header is too long"
_NOT_HTTP: Final = "The request is not valid HTTP"

log = get_logger()


class _Connection(RequestHandler):
    __slots__ = ()

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
        if not isinstance(exc_info, web.RequestPayloadError | ConnectionError):
            super().log_exception(*args, exc_info=exc_info, **kw)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def answer_in_json(app: web.Application) -> None:
    """Let the application's server make connections of the kind above."""
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

        options = made._kwargs  # noqa: SLF001
        return _Server(handle, request_factory=made.request_factory, **options)

    app._make_handler = make_own_server  # type: ignore[method-assign] # noqa: SLF001
