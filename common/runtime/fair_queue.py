"""A queue in which callers take turns: round robin between them, first in first out within one.

A caller's wait depends on the number of callers ahead of it, never on how much one of them wants.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Caller = TypeVar("Caller", bound=Hashable)
Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Caller, Item]):
    """Items that wait; each has a future, its turn, whose result whoever pops it sets.

    A caller takes part while `may_be_served` says so; `refresh` follows each change of that.
    """

    def __init__(self, may_be_served: Callable[[Caller], bool]) -> None:
        self._may_be_served = may_be_served
        self._queues: dict[Caller, OrderedDict[Item, asyncio.Future[bool]]] = {}
        self._ready: OrderedDict[Caller, None] = OrderedDict()  # who may be served, in turn

    def __len__(self) -> int:
        """Items that wait."""
        return sum(map(len, self._queues.values()))

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def is_ready(self) -> bool:
        """Whether somebody waits who may be served."""
        return bool(self._ready)

    def waiting(self, caller: Caller) -> int:
        """Items of the caller that wait."""
        return len(self._queues.get(caller, ()))

    def push(self, caller: Caller, item: Item) -> asyncio.Future[bool]:
        """Let an item wait; returns its turn."""
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, OrderedDict())[item] = turn
        self.refresh(caller)
        return turn

    def remove(self, caller: Caller, item: Item) -> None:
        """Let an item wait no longer, if it still does."""
        queue = self._queues.get(caller)
        if queue is not None and queue.pop(item, None) is not None and not queue:
            del self._queues[caller]
            self._ready.pop(caller, None)

    def pop(self) -> tuple[Item, asyncio.Future[bool]]:
        """The next item in turn, and its turn; `refresh` its caller afterwards."""
        caller, _ = self._ready.popitem(last=False)
        queue = self._queues[caller]
        served = queue.popitem(last=False)
        if not queue:
            del self._queues[caller]
        return served

    def refresh(self, caller: Caller) -> None:
        """Ask anew whether the caller may be served; it keeps its place in the round."""
        if caller in self._queues and self._may_be_served(caller):
            self._ready.setdefault(caller)
        else:
            self._ready.pop(caller, None)
