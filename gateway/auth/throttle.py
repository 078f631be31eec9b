"""Wrong credentials are limited in number, so that nobody finds the right ones by trying."""

import asyncio
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Final

from gateway.auth.errors import UnknownUser, WrongPassword
from gateway.http.limits import Caller, LimitExceeded

_FAILURES: Final = 10
_WINDOW: Final = 300.0
"""Wrong passwords of an address, and of an account, in so many seconds."""

_CAPACITY: Final = 32_768
"""Keys that are remembered: at 10 failures each about 10 MiB."""

_DROPPED: Final = 2
"""Forgotten keys per failure: more than it can add, and never a long pause."""

_LONGEST_ACCOUNT: Final = 256
"""Characters of an account's name that count. Cognito's end at 128."""


def account_key(name: str) -> bytes:
    """An account by its name in any case, of the same small size for any name."""
    folded = name[:_LONGEST_ACCOUNT].casefold()
    return blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Throttle:
    """Counts failures by key over a sliding window, and refuses keys that have too many.

    A key is an address or an account; two kinds of key need two instances, so that neither pushes
    the other out of memory. Beyond `capacity` the keys whose last failure is oldest are forgotten.
    """

    def __init__(
        self,
        limit: int,
        window: float,
        *,
        what: str = "wrong passwords",
        capacity: int = _CAPACITY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit` failures in `window` seconds; `what` they are, in the words of the refusal."""
        self._limit = limit
        self._window = window
        self._what = what
        self._capacity = capacity
        self._clock = clock
        self._failures: OrderedDict[str | bytes, array[float]] = OrderedDict()
        self._attempts: dict[str | bytes, _Attempts] = {}
        self.refused = 0

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._failures)

    def check(self, key: str | bytes) -> None:
        """Raise `LimitExceeded` while the key has `limit` failures within the window."""
        now = self._clock()
        times = self._recent(key, now)
        if len(times) >= self._limit:
            self.refused += 1
            limit = f"{self._limit} {self._what} in {self._window:g} s"
            raise LimitExceeded(limit, times[0] + self._window - now)

    def record(self, key: str | bytes) -> None:
        """Count one failure."""
        now = self._clock()
        times = self._recent(key, now)
        times.append(now)
        self._failures[key] = times[-self._limit :]
        self._failures.move_to_end(key)
        for _ in range(_DROPPED):
            oldest, times = next(iter(self._failures.items()))
            if len(self._failures) <= self._capacity and times[-1] + self._window > now:
                break
            del self._failures[oldest]

    @asynccontextmanager
    async def attempt(
        self, key: str | bytes, *, failures: type[Exception] | tuple[type[Exception], ...]
    ) -> AsyncIterator[None]:
        """Around a check of credentials that takes time: counts it if it raises one of `failures`.

        No more attempts of one key run at once than failures are left to it; others wait for
        their outcome. So many attempts at the same time are no way around the limit, and right
        credentials are not refused for coming in great number. Raises `LimitExceeded`.
        """
        attempts = await self._begin(key)
        try:
            yield
        except failures:
            self.record(key)
            raise
        finally:
            attempts.running -= 1
            if not attempts.running:
                del self._attempts[key]
            attempts.wake_all()

    async def _begin(self, key: str | bytes) -> "_Attempts":
        while True:
            self.check(key)
            attempts = self._attempts.get(key)
            if attempts is None:
                attempts = self._attempts[key] = _Attempts()
            if attempts.running + len(self._recent(key, self._clock())) < self._limit:
                attempts.running += 1
                return attempts
            await attempts.ended.wait()

    def _recent(self, key: str | bytes, now: float) -> "array[float]":
        times = self._failures.get(key)
        if times is None:
            return array("d")
        return times[bisect_right(times, now - self._window) :]


class LogInThrottle:
    """Wrong passwords, unknown accounts included, counted by address and by account."""

    def __init__(self) -> None:
        self._by_address = Throttle(_FAILURES, _WINDOW)
        self._by_account = Throttle(_FAILURES, _WINDOW)

    @asynccontextmanager
    async def attempt(self, address: Caller, account: str) -> AsyncIterator[None]:
        """Around the check of a password. Raises `LimitExceeded`."""
        failures = (WrongPassword, UnknownUser)
        async with (
            self._by_address.attempt(address, failures=failures),
            self._by_account.attempt(account_key(account), failures=failures),
        ):
            yield


class _Attempts:
    """Attempts of one key that are under way."""

    __slots__ = ("ended", "running")

    def __init__(self) -> None:
        self.running = 0
        self.ended = asyncio.Event()

    def wake_all(self) -> None:
        self.ended.set()
        self.ended = asyncio.Event()
