"""Python code that takes long, in threads, while the event loop goes on.

Threads share one interpreter. A busy one keeps it for the switch interval, and the event loop has
to get it back after each system call of a request.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

USUAL_INTERVAL: Final = 0.0005
"""Seconds. With Python's own 5 ms, a request of 0.1 ms takes 20 beside a busy thread."""

_INTERVAL: Final = 0.00005
"""The same while something is computed. At all times it would slow down threads that work for a
moment only, such as those of small uploads, by a fifth."""


class _Computing:
    """Shortens the switch interval while any thread is inside."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0

    def __enter__(self) -> None:
        with self._lock:
            self._threads += 1
            sys.setswitchinterval(_INTERVAL)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                sys.setswitchinterval(USUAL_INTERVAL)


_computing: Final = _Computing()


async def compute_in_thread(call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    """Call in a thread; raises what `call` does. When cancelled, this does not wait for it."""

    def run() -> T:
        with _computing:
            return call(*arguments)

    return await asyncio.to_thread(run)
