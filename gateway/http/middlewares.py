"""What every request passes, in this order.

1. Observation: it gets its id; when it ends, one log line and one measurement are written.
2. Errors: an exception becomes its JSON answer.
3. CORS: a preflight request, which carries no credentials, is answered here.
4. Authentication: a user's token, or the internal key where the worker-facing API reports.
5. Limits: a caller has a number of requests at once, a user also in a window of time. The answer
   to a user who is refused again and again waits.
6. Validation: what the handler's schemas describe is parsed.

All of it is one middleware: each more costs a request over 1 µs of processor time.
"""

import hmac
import re
import time
from collections.abc import Mapping
from random import getrandbits
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from multidict import istr

from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import bind, get_logger
from common.telemetry.outages import warn_of_database
from gateway.http.audit import DENIALS
from gateway.http.body import check_encoding, end_body
from gateway.http.callers import CallerLimits, came_by_https
from gateway.http.errors import WrongApiKey, detail_response, response_for
from gateway.http.keys import (
    BY_COOKIE,
    CALLER,
    CORS,
    ERROR_TABLE,
    HEALTH,
    IN_FLIGHT,
    REQUEST_ID,
    SETTINGS,
    STANDING,
    USER,
    VERIFIER,
)
from gateway.http.limits import INTERNAL_CALLER, LimitExceeded, user_caller
from gateway.http.refusals import REFUSALS
from gateway.http.request_log import RequestLog
from gateway.http.routing import METHOD_OVERRIDE
from gateway.http.security import SERVER, check_host
from gateway.http.tarpit import Tarpit
from gateway.http.validation import validate
from gateway.identity import NotAllowed, NotAuthenticated

_REQUEST_ID_HEADER: Final = istr("X-Request-ID")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}")
_NO_SNIFFING: Final = istr("X-Content-Type-Options")
_HSTS: Final = "max-age=31536000"
_CLIENT_GONE: Final = 499
_NOTHING: Final[Mapping[str, str]] = {}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

log = get_logger()


def pipeline(
    *,
    public: frozenset[Handler],
    internal: frozenset[Handler],
    streams: frozenset[Handler],
    limits: CallerLimits,
) -> Middleware:
    """The middleware of an application, which denies by default.

    `public` handlers need no credentials, `internal` ones the internal key, all others a user of
    the users' group. `limits` hold for all but the internal ones, that on requests at once not for
    `streams`.
    """
    request_log, tarpit = RequestLog(), Tarpit()

    @web.middleware
    async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[REQUEST_ID] = request_id = _request_id(request)
        bind(request_id=request_id)
        began, status = time.perf_counter(), _CLIENT_GONE
        in_flight = request.app[IN_FLIGHT]
        number = in_flight.begin()
        try:
            response = await answer(request, handler)
            if not response.prepared:
                complete_head(request, response)
            status = response.status
            return response
        finally:
            in_flight.end(number)
            request_log.record(request, status, time.perf_counter() - began)

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check_host(request.headers.get(hdrs.HOST))
            if request.method == "OPTIONS" and (preflight := request.app[CORS].preflight(request)):
                return preflight
            target = _find_handler(request)
            if target in internal:
                _check_api_key(request)
                request[CALLER] = INTERNAL_CALLER
                return await _carry_out(request, target, handler)
            if target in public:
                caller = limits.begin_anonymous(request)
            else:
                user = await _check_user(request)
                if target in streams:
                    request[CALLER] = limits.take(request, user)
                    return await _carry_out(request, target, handler)
                caller = limits.begin_user(request, user)
            request[CALLER] = caller
            try:
                return await _carry_out(request, target, handler)
            finally:
                limits.end(caller)
        except ConnectionError:
            raise  # the client is gone
        except Exception as error:  # noqa: BLE001 - logged there
            await _hold_if_limited(request, error, tarpit)
            return _error_response(request, error)

    return observe


async def _carry_out(request: web.Request, target: Handler, handler: Handler) -> web.StreamResponse:
    if hdrs.CONTENT_ENCODING in request.headers:
        check_encoding(request)
    if not getattr(target, "__schemas__", None):
        return await handler(request)
    try:
        await validate(request, target)
        return await handler(request)
    finally:
        end_body(request)


async def start_stream(request: web.Request, response: web.StreamResponse) -> None:
    """Send the head of an answer whose body is written in pieces, complete as any other."""
    complete_head(request, response)
    await response.prepare(request)


def complete_head(request: web.Request, response: web.StreamResponse) -> None:
    """Add what every answer states: the request's id, what browsers have to keep to, the caller's
    rate, which origin may read it, and while the process drains that the connection closes, so that
    no request meets a closing one."""
    headers = response.headers
    if REQUEST_ID in request:  # else refused before any middleware
        headers[_REQUEST_ID_HEADER] = request[REQUEST_ID]
    headers[_NO_SNIFFING] = "nosniff"
    headers[hdrs.SERVER] = SERVER
    if hdrs.X_FORWARDED_PROTO in request.headers and came_by_https(request):
        headers[hdrs.STRICT_TRANSPORT_SECURITY] = _HSTS
    if (standing := request.get(STANDING)) is not None:
        headers.update(standing.headers())
    app = request.app
    app[CORS].add_headers(request, headers)
    if app[HEALTH].draining:
        response.force_close()


def _request_id(request: web.Request) -> str:
    """The id that the client sent if it is a plain one, else a new one."""
    sent = request.headers.get(_REQUEST_ID_HEADER)
    return sent if sent and _REQUEST_ID.fullmatch(sent) else getrandbits(128).to_bytes(16).hex()


async def _hold_if_limited(request: web.Request, error: Exception, tarpit: Tarpit) -> None:
    """Let a user's answer wait; many users may share an address, so that no other one does."""
    if isinstance(error, LimitExceeded) and USER in request:
        await tarpit.hold(user_caller(request[USER].id))


def _error_response(request: web.Request, error: Exception) -> web.Response:
    if isinstance(error, NotAuthenticated):
        error = request.app[REFUSALS].record_token(request, error)
    elif isinstance(error, WrongApiKey):
        request.app[REFUSALS].record(request, "api_key")
    elif isinstance(error, NotAllowed):
        request.app[DENIALS].record(request, str(error))
    response = response_for(error, request.method, request.app[ERROR_TABLE])
    if response is None:
        log.error("request.failed", path=request.path, exc_info=error)
        return detail_response(500, "Internal Server Error")
    response.headers.update(getattr(request.match_info.handler, "__refused_with__", _NOTHING))
    if response.status >= 500:
        warn = warn_of_database if isinstance(error, DatabaseUnavailable) else log.warning
        warn("request.refused", status=response.status, reason=repr(error))
    return response


def _find_handler(request: web.Request) -> Handler:
    """The handler of the route, without middleware. An unknown path or method is refused here,
    before authentication."""
    route = request.match_info
    if route.http_exception is not None:
        raise route.http_exception
    return route.handler


def _check_api_key(request: web.Request) -> None:
    """Refuse a wrong key; validation reports a missing one."""
    sent = request.headers.get("x-api-key")
    expected = request.app[SETTINGS].internal_api_key
    if sent is not None and not hmac.compare_digest(
        sent.encode("utf-8", "surrogateescape"), expected.encode()
    ):
        raise WrongApiKey("unauthorized")


def _cookie(request: web.Request, name: str) -> str:
    """A cookie's value without its quotes; empty if there is none.

    A strict parser would fail at other cookies that come with ours.
    """
    for header in request.headers.getall(hdrs.COOKIE, []):
        for pair in header.split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
    return ""


async def _check_user(request: web.Request) -> str:
    """Authenticate the caller; returns the user's id."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    request[BY_COOKIE] = header is None
    if header is None:
        header = _cookie(request, "Authorization")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        reason = "malformed" if header else "missing"
        raise NotAuthenticated("Not authenticated", reason, has_token=False)
    user = await request.app[VERIFIER].verify(token.strip())
    bind(user_id=user.id)
    request[USER] = user
    user.check_may_enter()
    if (
        request[BY_COOKIE]
        and (request.method not in _SAFE_METHODS or METHOD_OVERRIDE in request.headers)
        and not request.app[CORS].allows(request)
    ):
        raise NotAllowed("A change with the log-in cookie needs the front end's Origin")
    return user.id
