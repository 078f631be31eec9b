"""Takes from an outbox what the gate in front of its peer lets through.

What is held is tried one item at a time, every few seconds, by every daemon: when one of them goes
through, whatever had held it has been mended, and everything that is held is released.
"""

import time
from collections.abc import Awaitable
from typing import Final

from common.database.errors import DatabaseUnavailable
from common.outbox.breaker import Gate, Permit, State
from common.outbox.outbox import Claimed, Outbox

_HELD_EVERY: Final = 4.0
"""Seconds between two tries of a held item while everything else flows."""

_SOON: Final = 60.0
"""Seconds within which what waits will show by itself whether the peer takes it."""


class Intake:
    """One outbox behind one gate. Tell it what came of each item that it gave out."""

    def __init__(self, outbox: Outbox, gate: Gate) -> None:
        self._outbox = outbox
        self._gate = gate
        self._were_held: set[int] = set()
        self._held_tried = float("-inf")

    async def take(self, limit: int) -> list[Claimed]:
        """Claim up to `limit` items, or the one or two that a trial may send."""
        match self._gate.permit:
            case Permit.NOTHING:
                return []
            case Permit.ONE:
                items = await self._outbox.claim_for_trial() or await self._take_held()
                if not items:
                    await self._close_if_idle()
            case Permit.TRIAL:
                items = await self._take_held(now=True)
                items = await self._add(items, self._outbox.claim_for_trial())
                if not items:
                    await self._close_if_idle()
            case Permit.ALL:
                # first, since there may always be enough of the others
                items = await self._take_held()
                if limit > len(items):
                    items = await self._add(items, self._outbox.claim(limit - len(items)))
        if items:
            self._gate.trial_started()
        return items

    async def _close_if_idle(self) -> None:
        """What cannot be sent just now may be what the peer does not take, so that has its turn."""
        if self._gate.state is not State.CLOSED and not await self._outbox.has_work(_SOON):
            self._gate.nothing_to_try()

    async def _add(self, claimed: list[Claimed], more: Awaitable[list[Claimed]]) -> list[Claimed]:
        """What has been claimed goes out, also when no more can be."""
        try:
            return claimed + await more
        except DatabaseUnavailable:
            if not claimed:
                raise
            return claimed

    async def _take_held(self, *, now: bool = False) -> list[Claimed]:
        if not now and time.monotonic() - self._held_tried < _HELD_EVERY:
            return []
        self._held_tried = time.monotonic()
        items = await self._outbox.claim_held(1)
        self._were_held.update(item.id for item in items)
        return items

    def was_held(self, item: Claimed) -> bool:
        """Whether the item is a try of what has been held."""
        return item.id in self._were_held

    def succeeded(self, item: Claimed) -> bool:
        """The item was taken; returns whether that tells that what is held can be released."""
        was_held = item.id in self._were_held
        self._were_held.discard(item.id)
        self._gate.succeeded()
        return was_held

    async def release_held(self) -> int:
        """Make everything held due again; returns how many."""
        released = await self._outbox.release_held()
        self._gate.on_change()
        return released

    def untried(self, item: Claimed) -> None:
        """The peer was not asked about the item."""
        self._were_held.discard(item.id)
        self._gate.trial_ended()

    def failed(self, item: Claimed, retry_after: float | None = None) -> None:
        """The item was not taken, or nobody knows."""
        self._were_held.discard(item.id)
        self._gate.failed(item.id, retry_after)

    def unreachable(self, item: Claimed) -> None:
        """There was no connection."""
        self._were_held.discard(item.id)
        self._gate.unreachable()

    def refused(self, item: Claimed) -> None:
        """The peer refused us. While others go through, one that stays held stops nobody."""
        was_held = item.id in self._were_held
        self._were_held.discard(item.id)
        if not was_held or self._gate.permit is not Permit.ALL:
            self._gate.refused()
