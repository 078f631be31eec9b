"""How many requests a caller may make in a window of time, and the headers that state it.

A caller's window starts with its first request and is followed by the next one after it. The
headers are those of draft-ietf-httpapi-ratelimit-headers-10.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from typing import Final, NamedTuple

from gateway.http.limits import Caller, LimitExceeded

_DROPPED: Final = 2
"""Ended windows that one request drops at most: more than it adds, and never a long pause."""


_CAPACITY: Final = 100_000
"""Callers that are remembered, about 20 MiB; beyond them the oldest window is dropped."""


class Standing(NamedTuple):
    """What a caller has left; times in seconds."""

    limit: int
    window: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Policy": f'"default";q={self.limit};w={self.window}',
            "RateLimit": f'"default";r={self.remaining};t={self.reset_seconds}',
        }


class RateLimit:
    """Counts requests by caller; those whose window has ended are dropped as others come."""

    def __init__(
        self,
        limit: int,
        window: int,
        *,
        what: str = "requests",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` requests in `window` seconds; `what` they are, in the words of the refusal."""
        self._limit = limit
        self._window = window
        self._what = what
        self._clock = clock
        self._windows: OrderedDict[Caller, _Window] = OrderedDict()  # the oldest first
        self.refused = 0

    def __len__(self) -> int:
        """Callers that are remembered."""
        return len(self._windows)

    def take(self, caller: Caller) -> Standing:
        """Count one request. Raises `LimitExceeded` if the caller has none left."""
        now = self._clock()
        window = self._windows.get(caller)
        if window is None or window.ends <= now:
            window = self._windows[caller] = _Window(now + self._window)
            self._windows.move_to_end(caller)
        self._drop_ended(now)
        if window.requests >= self._limit:
            self.refused += 1
            raise LimitExceeded(
                f"{self._limit} {self._what} in {self._window} s", window.ends - now
            )
        window.requests += 1
        return self._standing(window.requests, window.ends - now)

    def standing(self, caller: Caller) -> Standing:
        """What the caller has left, without counting a request."""
        now = self._clock()
        window = self._windows.get(caller)
        if window is None or window.ends <= now:
            return self._standing(0, self._window)
        return self._standing(window.requests, window.ends - now)

    def _standing(self, requests: int, left: float) -> Standing:
        return Standing(self._limit, self._window, self._limit - requests, ceil(left))

    def _drop_ended(self, now: float) -> None:
        for _ in range(_DROPPED):
            caller, window = next(iter(self._windows.items()))
            if window.ends > now and len(self._windows) <= _CAPACITY:
                return
            del self._windows[caller]


class _Window:
    __slots__ = ("ends", "requests")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.requests = 0
