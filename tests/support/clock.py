"""Clocks that tests set."""

import asyncio
import time
from typing import Any

import pytest


class Clock:
    """Stands still at `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def only_sleep_takes_time(patch: pytest.MonkeyPatch) -> Clock:
    """The clock of this process and its event loop, which `asyncio.sleep` sets forward at once.

    Timers of the loop never end meanwhile.
    """
    clock = Clock()

    async def sleep(seconds: float, result: Any = None) -> Any:
        clock.now += seconds
        return result

    patch.setattr(time, "monotonic", clock)
    patch.setattr(asyncio, "sleep", sleep)
    return clock
