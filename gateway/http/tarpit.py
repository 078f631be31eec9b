"""Answers to refused requests that wait, so that trying again at once does not pay.

A refusal costs the event loop about as much as a small answer. A client that repeats what was
refused without a pause, on dozens of connections, keeps every other client behind all of these.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.http.limits import Caller

_EVERY: Final = 0.01
"""Seconds between two refusals of one caller."""

_AT_ONCE: Final = 100
"""Refusals of a caller that are answered at once, after as many times `_EVERY` without any."""

_LONGEST: Final = 1.0
"""Seconds that an answer waits at most."""

_DROPPED: Final = 2
"""Callers that one refusal forgets at most: more than it adds."""


class Tarpit:
    """Paces the refusals of each caller."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: OrderedDict[Caller, float] = OrderedDict()  # who was refused last is the last

    def __len__(self) -> int:
        """Callers that are remembered."""
        return len(self._due)

    async def hold(self, caller: Caller) -> None:
        """Wait until the caller's refusal is to be answered."""
        if (seconds := self.delay(caller)) > 0:
            await asyncio.sleep(seconds)

    def delay(self, caller: Caller) -> float:
        """Seconds for which a refusal that is due now has to wait, counting it."""
        now = self._clock()
        self._forget(now)
        earliest = now - _AT_ONCE * _EVERY
        due = min(max(self._due.get(caller, earliest), earliest) + _EVERY, now + _LONGEST)
        self._due[caller] = due
        self._due.move_to_end(caller)
        return max(0.0, due - now)

    def _forget(self, now: float) -> None:
        for _ in range(min(_DROPPED, len(self._due))):
            caller, due = next(iter(self._due.items()))
            if due > now - _AT_ONCE * _EVERY:
                return
            del self._due[caller]
