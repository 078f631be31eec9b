"""Takes from an outbox what the circuit breaker in front of its peer lets through.

Held items are tried one at a time, every few seconds, by every daemon: when one of them is taken,
the mistake that held it has been corrected, and all held items are released.
"""

import time
from collections.abc import Awaitable, Iterable
from typing import Any, Final, Generic

from common.database.errors import DatabaseUnavailable
from common.outbox.breaker import Allowance, BreakerState, CircuitBreaker, Reason
from common.outbox.claims import Item
from common.outbox.outbox import Outbox
from common.outbox.peer_client import Outcome
from common.runtime.claim_loop import WorkSignal

_HELD_EVERY: Final = 4.0
"""Seconds between two tries of a held item while everything else flows."""

_SOON: Final = 60.0
"""Seconds within which an item that waits will show by itself whether the peer takes it."""


class Consumer(Generic[Item]):
    """One outbox behind one breaker; needs to learn the outcome of each item that it gave out."""

    def __init__(self, outbox: Outbox[Item], breaker: CircuitBreaker, signal: WorkSignal) -> None:
        self._outbox = outbox
        self._breaker = breaker
        self._signal = signal
        self._were_held: set[int] = set()
        self._held_tried = float("-inf")

    async def take(self, limit: int) -> list[Item]:
        """Claim up to `limit` items, or the one or two that a half-open breaker lets through."""
        match self._breaker.allowance():
            case Allowance.NOTHING:
                return []
            case Allowance.ONE:
                items = await self._take_one()
            case Allowance.ALL:
                # held ones first, since there may always be enough of the others
                items = await self._take_held()
                if limit > len(items):
                    items = await self._add(items, self._outbox.claim(limit - len(items)))
        if items:
            self._breaker.acquire()
        return items

    async def _take_one(self) -> list[Item]:
        """One item; after a refusal a held one, whose turn it is, and a due one."""
        half_open = self._breaker.state is BreakerState.HALF_OPEN
        if half_open and self._breaker.reason is Reason.REFUSED:
            items = await self._take_held(now=True)
            items = await self._add(items, self._outbox.claim_one())
        else:
            items = await self._outbox.claim_one() or await self._take_held()
        # an item that is not due yet may be the one that the peer does not take: it has its turn
        if not items and half_open and not await self._outbox.has_work(_SOON):
            self._breaker.nothing_to_send()
        return items

    async def _add(self, claimed: list[Item], more: Awaitable[list[Item]]) -> list[Item]:
        """Both claims; if the second one fails, the items of the first still go out."""
        try:
            return claimed + await more
        except DatabaseUnavailable:
            if not claimed:
                raise
            return claimed

    async def _take_held(self, *, now: bool = False) -> list[Item]:
        if not now and time.monotonic() - self._held_tried < _HELD_EVERY:
            return []
        self._held_tried = time.monotonic()
        items = await self._outbox.claim_held(1)
        self.note_held(items)
        return items

    def note_held(self, items: Iterable[Item]) -> None:
        """These items, which the consumer has not given out itself, were held."""
        self._were_held.update(item.id for item in items)

    async def release_held(self) -> int:
        """Make all held items due again; returns how many."""
        released = await self._outbox.release_held()
        self._signal.wake()
        return released

    @property
    def flows(self) -> bool:
        """Whether everything may be sent."""
        return self._breaker.allowance() is Allowance.ALL

    # -- outcomes ----------------------------------------------------------------------------

    def was_held(self, item: Item) -> bool:
        """Whether the item was held before it was claimed."""
        return item.id in self._were_held

    def succeeded(self, item: Item) -> bool:
        """The item was taken; returns whether that shows that held items can be released."""
        was_held = self._forget(item)
        self._breaker.succeeded()
        return was_held

    def untried(self, item: Item) -> None:
        """The peer was not asked about the item."""
        self._forget(item)
        self._breaker.release()

    def failed(self, item: Item, outcome: Outcome[Any]) -> None:
        """The item was not taken, or it is in doubt."""
        self._forget(item)
        if outcome.reachable:
            self._breaker.failed(item.id, outcome.retry_after)
        else:
            self._breaker.unreachable()

    def refused(self, item: Item) -> None:
        """The peer refused us. While others go through, one item that stays held stops nothing."""
        if not self._forget(item) or not self.flows:
            self._breaker.refused()

    def _forget(self, item: Item) -> bool:
        was_held = item.id in self._were_held
        self._were_held.discard(item.id)
        return was_held
