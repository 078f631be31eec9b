"""What every request passes: observation, errors, CORS, authentication and validation."""

import hmac
import re
import time
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from logging import DEBUG
from random import getrandbits
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from structlog.contextvars import bind_contextvars, clear_contextvars

from common.telemetry.logs import get_logger
from gateway.http.errors import WrongApiKey, detail_response, response_for
from gateway.http.keys import (
    BY_COOKIE,
    CORS,
    ERROR_TABLE,
    HEALTH,
    IN_FLIGHT,
    REQUEST_ID,
    SETTINGS,
    USER,
    VERIFIER,
)
from gateway.http.validation import validate
from gateway.identity import NotAllowed, NotAuthenticated
from gateway.metrics import REQUESTS

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:@=+/-]{1,128}")
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_QUIET: Final = {"/": count(), "/_job_status": count()}
"""Routes of health checks and keep-alives, and how many of each have succeeded."""

SAMPLED: Final = 100
"""Of those one in so many is logged, the first included; the others at debug level only."""

log = get_logger()


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, and write one log line and one measurement when it is over."""
    sent = request.headers.get("X-Request-ID")
    request_id = sent if sent and _REQUEST_ID.fullmatch(sent) else f"{getrandbits(128):032x}"
    request[REQUEST_ID] = request_id
    clear_contextvars()
    bind_contextvars(request_id=request_id)
    began = time.perf_counter()
    status = 499  # the client went away
    in_flight = request.app[IN_FLIGHT]
    number = in_flight.begin()
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        in_flight.end(number)
        _record(request, status, time.perf_counter() - began)


async def sign(request: web.Request, response: web.StreamResponse) -> None:
    """Signal handler for every answer, streams included: whose it is, who may read it, and whether
    it is the last.

    While the process drains each closes its connection, so that no request meets a closing one.
    """
    headers = response.headers
    if (request_id := request.get(REQUEST_ID)) is not None:  # else refused before any middleware
        headers["X-Request-ID"] = request_id
    app = request.app
    if (cors := app.get(CORS)) is not None:
        cors.add_headers(request, headers)
    if app[HEALTH].draining:
        response.force_close()
        headers[hdrs.CONNECTION] = "close"  # aiohttp has decided already


def _record(request: web.Request, status: int, seconds: float) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unknown"
    _duration_of(request.method, route, status).observe(seconds)
    if status < 400 and (succeeded := _QUIET.get(route)) is not None:
        if next(succeeded) % SAMPLED == 0:
            _log_answer(log.info, request, route, status, seconds, sampled=SAMPLED)
        elif log.is_enabled_for(DEBUG):
            _log_answer(log.debug, request, route, status, seconds)
        return
    _log_answer(log.info, request, route, status, seconds)


def _log_answer(
    write: Callable[..., Any],
    request: web.Request,
    route: str,
    status: int,
    seconds: float,
    **more: int,
) -> None:
    user = request.get(USER)
    write(
        "request.answered",
        method=request.method,
        route=route,
        path=request.path,
        status=status,
        ms=round(seconds * 1000, 1),
        user_id=user.id if user else None,
        **more,
    )


@lru_cache(maxsize=1024)
def _duration_of(method: str, route: str, status: int) -> Any:
    return REQUESTS.labels(method, route, status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever was raised into its JSON answer."""
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, ConnectionError):
            raise  # the client went away: there is nobody to answer
        response = response_for(error, request.method, request.app[ERROR_TABLE])
        if response is None:
            log.exception("request.failed", path=request.path)
            return detail_response(500, "Internal Server Error")
        if response.status >= 500:
            log.warning("request.refused", status=response.status, reason=repr(error))
        return response


def authenticate(*, public: frozenset[Handler], internal: frozenset[Handler]) -> Middleware:
    """Deny by default: every handler but the listed ones needs a user of the users' group.

    A preflight request tells who asks for a browser, so it needs none.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == hdrs.METH_OPTIONS and (cors := request.app.get(CORS)) is not None:
            preflight = cors.preflight(request)
            if preflight is not None:
                return preflight
        if request.match_info.http_exception is not None:
            raise request.match_info.http_exception  # routing precedes authentication
        target = request.match_info.handler
        if target in internal:
            _check_api_key(request)
        elif target not in public:
            await _check_user(request)
        if hasattr(target, "__schemas__"):
            await validate(request, target)
        return await handler(request)

    return check


def _check_api_key(request: web.Request) -> None:
    """A wrong key is refused here; a missing one is a fault that validation reports."""
    sent = request.headers.get("x-api-key")
    expected = request.app[SETTINGS].internal_api_key
    if sent is not None and not hmac.compare_digest(
        sent.encode("utf-8", "surrogateescape"), expected.encode()
    ):
        raise WrongApiKey("unauthorized")


def _cookie(request: web.Request, name: str) -> str:
    """A cookie's value, in quotes or not; empty if there is none.

    Clients send ours as they please, and other cookies that a strict parser would stumble over.
    """
    for header in request.headers.getall(hdrs.COOKIE, []):
        for pair in header.split(";"):
            key, _, value = pair.partition("=")
            if key.strip() == name:
                return value.strip().strip('"')
    return ""


async def _check_user(request: web.Request) -> None:
    header = request.headers.get(hdrs.AUTHORIZATION)
    request[BY_COOKIE] = header is None
    if header is None:
        header = _cookie(request, "Authorization")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("Not authenticated")
    user = await request.app[VERIFIER].verify(token.strip())
    bind_contextvars(user_id=user.id)
    user.check_may_enter()
    request[USER] = user
    if (
        request[BY_COOKIE]
        and request.method not in _SAFE_METHODS
        and not request.app[CORS].allows(request)
    ):
        raise NotAllowed("A change with the log-in cookie needs the front end's Origin")
