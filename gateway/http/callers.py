"""Who sends a request, and the limits on all the requests of one caller."""

from aiohttp import hdrs, web

from gateway.http.client_address import ClientAddress
from gateway.http.concurrency import ConcurrencyLimit
from gateway.http.keys import PROXIES, STANDING
from gateway.http.limits import Caller, LimitExceeded, user_caller
from gateway.http.rates import RateLimit


def client_of(request: web.Request) -> ClientAddress:
    """The client's address, as trusted proxies report it."""
    return request.app[PROXIES].client(
        request.remote, request.headers.getall(hdrs.X_FORWARDED_FOR, ())
    )


def came_by_https(request: web.Request) -> bool:
    """Whether the client used https, as a trusted proxy reports it."""
    scheme = request.headers.get(hdrs.X_FORWARDED_PROTO, "").partition(",")[0].strip().lower()
    return scheme == "https" and request.app[PROXIES].trusts(request.remote)


class CallerLimits:
    """Requests that one caller may have in progress, and those of a user in a window of time."""

    def __init__(self, concurrent: int, rate: tuple[int, int] | None) -> None:
        """`concurrent` 0 and `rate` None mean no limit; a rate is requests and seconds."""
        self._concurrency = ConcurrencyLimit(concurrent)
        self._rate = RateLimit(*rate) if rate else None

    def begin_user(self, request: web.Request, user_id: str) -> Caller:
        """Count a request of a user; `end` has to follow. Raises `LimitExceeded`."""
        caller = self.take(request, user_id)
        self._concurrency.begin(caller)
        return caller

    def take(self, request: web.Request, user_id: str) -> Caller:
        """Count a request against the user's rate alone. Raises `LimitExceeded`."""
        caller = user_caller(user_id)
        if self._rate is None:
            request[STANDING] = None  # aiohttp takes longer to find that there is no such key
            return caller
        try:
            request[STANDING] = self._rate.take(caller)
        except LimitExceeded:
            request[STANDING] = self._rate.standing(caller)
            raise
        return caller

    def begin_anonymous(self, request: web.Request) -> Caller:
        """Count a request without credentials by its address; as `begin_user`."""
        caller = client_of(request).caller
        request[STANDING] = None
        self._concurrency.begin(caller)
        return caller

    def end(self, caller: Caller) -> None:
        self._concurrency.end(caller)
