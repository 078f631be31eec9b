"""How many requests one caller may have under way at once."""

from typing import Final

from gateway.http.limits import Caller, LimitExceeded

_RETRY_AFTER: Final = 1.0


class ConcurrencyLimit:
    """Counts requests by caller and refuses at once those beyond `limit`; 0 means no limit."""

    def __init__(self, limit: int, what: str = "requests") -> None:
        """`what` is counted, in the words of the refusal."""
        self._limit = limit
        self._what = what
        self._under_way: dict[Caller, int] = {}
        self.refused = 0

    def __len__(self) -> int:
        """Callers with a request under way."""
        return len(self._under_way)

    def admit(self, caller: Caller) -> "_Admission":
        """`with limit.admit(caller):` around a request; entering may raise `LimitExceeded`."""
        return _Admission(self, caller)

    def begin(self, caller: Caller) -> None:
        count = self._under_way.get(caller, 0)
        if 0 < self._limit <= count:
            self.refused += 1
            raise LimitExceeded(f"{self._limit} {self._what} at once", _RETRY_AFTER)
        self._under_way[caller] = count + 1

    def end(self, caller: Caller) -> None:
        count = self._under_way[caller] - 1
        if count:
            self._under_way[caller] = count
        else:
            del self._under_way[caller]


class _Admission:
    __slots__ = ("_caller", "_limit")

    def __init__(self, limit: ConcurrencyLimit, caller: Caller) -> None:
        self._limit = limit
        self._caller = caller

    def __enter__(self) -> None:
        self._limit.begin(self._caller)

    def __exit__(self, *_: object) -> None:
        self._limit.end(self._caller)
