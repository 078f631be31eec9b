"""How many submissions may be under way at once."""


class AdaptiveConcurrencyLimit:
    """How many submissions may be under way at once: between 1 and `most`.

    The peer handles one submission at a time, so the more are sent at once, the longer each takes.
    The limit grows by one with each fast answer, and is halved before the deadline is near.
    """

    def __init__(self, most: int, *, deadline: float) -> None:
        """`deadline`, in seconds, is that of one submission; a quarter of it counts as slow."""
        self._most = most
        self._slow = deadline / 4
        self._limit = float(most)

    @property
    def current(self) -> int:
        return int(self._limit)

    def took(self, seconds: float, *, timed_out: bool) -> None:
        """A submission took this long."""
        if timed_out or seconds > self._slow:
            self._limit = max(1.0, self._limit / 2)
        else:
            self._limit = min(float(self._most), self._limit + 1.0)
