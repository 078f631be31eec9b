"""Waiting times between attempts: exponential, with full jitter."""

import random
from typing import Final

_LARGEST_EXPONENT: Final = 30


def full_jitter(attempt: int, *, first: float, cap: float) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (counted from 1).

    Uniform between nothing and `first` doubled each time, at most `cap`, so that those who failed
    together do not come back together.
    """
    ceiling = min(cap, first * 2 ** min(max(attempt, 1) - 1, _LARGEST_EXPONENT))
    return random.uniform(0.0, ceiling)  # noqa: S311 - spreads load, guards nothing
