"""The log line and the measurement that every request ends with."""

import time
from functools import lru_cache
from itertools import count
from logging import DEBUG
from typing import Any, Final

from aiohttp import web

from common.telemetry.logs import get_logger
from gateway.http.keys import USER
from gateway.metrics import REQUESTS

SAMPLED: Final = 100
"""One in so many successes of a quiet route is logged, the first included; the others at debug
level only."""

_QUIET: Final = frozenset({"/", "/_job_status"})
"""Routes of health checks and keep-alives."""

_REFUSED: Final = frozenset({401, 403, 429})
_WINDOW: Final = 10.0
WHOLE: Final = 100
"""Refused requests that are logged in each `_WINDOW` seconds; beyond them one in `SAMPLED`."""


class RequestLog:
    """The requests of one application."""

    def __init__(self) -> None:
        self._log = get_logger().bind()  # once: structlog's lazy logger takes a sixth of a line
        self._succeeded = {route: count() for route in _QUIET}
        self._refused, self._window_ends = count(), 0.0

    def record(self, request: web.Request, status: int, seconds: float) -> None:
        """Write and measure a request that took `seconds` up to its answer."""
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "unknown"
        _duration_of(request.method, route, status).observe(seconds)
        write, more = self._log.info, {}
        is_sampled = route in _QUIET if status < 400 else status in _REFUSED
        if is_sampled and (number := self._number(route, status)) is not None:
            if number % SAMPLED == 0:
                more = {"sampled": SAMPLED}
            elif self._log.is_enabled_for(DEBUG):
                write = self._log.debug
            else:
                return
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

    def _number(self, route: str, status: int) -> int | None:
        """The request's number among those that are sampled; None for a refused one that is not."""
        if status < 400:
            return next(self._succeeded[route])
        now = time.monotonic()
        if now >= self._window_ends:
            self._refused, self._window_ends = count(), now + _WINDOW
        number = next(self._refused)
        return number if number >= WHOLE else None


@lru_cache(maxsize=1024)
def _duration_of(method: str, route: str, status: int) -> Any:
    return REQUESTS.labels(method, route, status)
