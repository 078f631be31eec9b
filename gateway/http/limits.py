"""What all limits on callers share: whom they count, and the error they raise."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, NewType

Caller = NewType("Caller", str)
"""Whom a limit counts: a user, or an address where there are no credentials."""

UNKNOWN: Final = Caller("address:unknown")
"""Clients without a network address count as one."""

INTERNAL_CALLER: Final = Caller("internal")
"""The worker-facing API, which no limit of users concerns."""

_COUNTED_PREFIX: Final = 64
"""An IPv6 client usually has a whole /64 (RFC 6177): a limit on single addresses is none."""


class LimitExceeded(Exception):
    """The caller has used up a limit; `retry_after` is in seconds."""

    def __init__(self, limit: str, retry_after: float) -> None:
        super().__init__(f"Limit exceeded: {limit}")
        self.limit = limit
        self.retry_after = retry_after


class Overloaded(LimitExceeded):
    """The caller is within its own limits; the service has no capacity left for it."""


def user_caller(user_id: str) -> Caller:
    return Caller(f"user:{user_id}")


def address_caller(address: IPv4Address | IPv6Address) -> Caller:
    """The caller at this address; an IPv6 client is counted by its /64."""
    if isinstance(address, IPv6Address):
        return Caller(f"address:{IPv6Network((int(address), _COUNTED_PREFIX), strict=False)}")
    return Caller(f"address:{address}")
