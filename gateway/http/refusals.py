"""Refused credentials: counted, logged with their addresses; wrong tokens have a limit."""

from typing import Final

from aiohttp import web

from gateway.http.callers import client_of
from gateway.http.counted_lines import CountedLines
from gateway.http.limits import LimitExceeded
from gateway.http.rates import RateLimit
from gateway.identity import NotAuthenticated
from gateway.metrics import CREDENTIALS_REFUSED

WRONG_TOKENS: Final = 3_000
WINDOW: Final = 60
"""Wrong tokens of one address in so many seconds. Nobody finds a signature by trying: beyond these
a broken client is asked to pause."""


class Refusals:
    """Refused credentials of one application."""

    def __init__(self) -> None:
        self._lines = CountedLines("credentials.refused")
        self._wrong_tokens = RateLimit(WRONG_TOKENS, WINDOW, what="wrong tokens")

    def record(self, request: web.Request, reason: str) -> None:
        """Log and count credentials that were refused, with where they came from."""
        CREDENTIALS_REFUSED.labels(reason).inc()
        address = client_of(request).text
        self._lines.write((address, reason), {"address": address, "reason": reason})

    def record_token(self, request: web.Request, error: NotAuthenticated) -> Exception:
        """Record a refused token; returns the error to answer with.

        That is `LimitExceeded` where the address has sent too many wrong ones. It never depends on
        the address whether a valid token holds, since many users may share one; and one that has
        expired stays an expired one, which is how its client learns that it needs another.
        """
        self.record(request, error.reason)
        if error.has_token and error.reason != "expired":
            try:
                self._wrong_tokens.take(client_of(request).caller)
            except LimitExceeded as exceeded:
                return exceeded
        return error


REFUSALS: Final = web.AppKey("refusals", Refusals)
