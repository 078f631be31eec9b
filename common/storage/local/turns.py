"""One thread at a time for work that is a great many short system calls.

A thread gives the interpreter's lock away at each of them and has to get it back. Several such
threads at once fight over it, and each listing takes several times as long as it would alone.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_PATIENCE: Final = 0.1
"""Seconds after which a call goes ahead beside others: they wait for a slow disk, and can do so
together."""


class Turns:
    """Lets calls from several threads take turns, as long as each is quick."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def take(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Wait for a turn, then call."""
        is_mine = self._turn.acquire(timeout=_PATIENCE)
        try:
            return call(*arguments)
        finally:
            if is_mine:
                self._turn.release()
