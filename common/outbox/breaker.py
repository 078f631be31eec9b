"""A circuit breaker in front of a peer: a peer that is down costs a trickle of probes, no more.

    CLOSED     everything flows; after a trial that found no item, a first one goes alone
    OPEN       nothing is sent; the peer is probed, at least every few seconds
    HALF_OPEN  a probe was answered: one item at a time, until one is taken or none is left
    HELD       wrong key or address: nothing is sent but a trial every few seconds
    TRIAL      such a trial may start now

One gate per process and peer; it holds no item and knows no database.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from enum import StrEnum
from typing import Any, Final

from common.runtime.retry import full_jitter
from common.runtime.tasks import end
from common.telemetry.logs import get_logger

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 4.0
"""Seconds from one probe to the next, each counted from its start; 5 s are promised."""

log = get_logger()


class Permit(StrEnum):
    """How much may be sent: nothing, one item, one due and one held item, whatever is due."""

    NOTHING = "nothing"
    ONE = "one"
    TRIAL = "trial"
    ALL = "all"


class State(StrEnum):
    """States of the gate, in the circuit breaker's usual terms."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    HELD = "held"
    TRIAL = "trial"


_PERMITS: Final = {
    State.CLOSED: Permit.ALL,
    State.OPEN: Permit.NOTHING,
    State.HALF_OPEN: Permit.ONE,
    State.HELD: Permit.NOTHING,
    State.TRIAL: Permit.TRIAL,
}


class Gate:
    """Told what came of each delivery, tells how much may be sent.

    `probe` asks the peer for a sign of life, cheaply. `on_change` is called when more may be sent
    than before.
    """

    def __init__(
        self,
        peer: str,
        *,
        probe: Callable[[], Awaitable[bool]],
        threshold: int = 5,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self.state = State.CLOSED
        self.on_change: Callable[[], None] = lambda: None
        self._peer = peer
        self._probe = probe
        self._threshold = threshold
        self._longest_pause = longest_pause
        self._failing: set[Hashable] = set()
        self._is_proven = True
        self._pauses = 0
        self._paused_until = 0.0
        self._trying = False
        self._blocked = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    # -- what may be sent --------------------------------------------------------------------

    @property
    def is_reachable(self) -> bool:
        """Whether, as far as is known, the peer can be worked with."""
        return self.state in {State.CLOSED, State.HALF_OPEN}

    @property
    def permit(self) -> Permit:
        """How much may be sent now."""
        if self._trying or asyncio.get_running_loop().time() < self._paused_until:
            return Permit.NOTHING
        if self.state is State.CLOSED and not self._is_proven:
            return Permit.ONE
        return _PERMITS[self.state]

    async def describe(self) -> Mapping[str, Any]:
        """What a probe of this process tells of its peer."""
        return {"ok": self.is_reachable, "gate": self.state}

    def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.call_later(seconds, self.on_change)

    # -- what came of it ---------------------------------------------------------------------

    def succeeded(self) -> None:
        """The peer took something, so it is there and knows us."""
        self._failing.clear()
        self._pauses = 0
        self._is_proven = True
        was_paused, self._paused_until = self._paused_until > 0.0, 0.0
        self._enter(State.CLOSED)
        if was_paused:
            self.on_change()

    def failed(self, item: Hashable, retry_after: float | None = None) -> None:
        """`item` was not taken, or nobody knows; several in a row from different items open.

        `retry_after`, in seconds, is for all where another item failed as well since the last one
        that was taken; else nothing tells that it is not for this item alone.
        """
        self._failing.add(item)
        if retry_after and len(self._failing) > 1:
            self._pause(retry_after)
        in_a_row = len(self._failing) >= self._threshold
        if self.state is not State.CLOSED or not self._is_proven or in_a_row:
            self._enter(State.OPEN)

    def unreachable(self) -> None:
        """There was no connection to the peer."""
        self._enter(State.OPEN)

    def refused(self) -> None:
        """The peer refused us, not the item."""
        self._enter(State.HELD)

    def trial_started(self) -> None:
        """Something is on its way; nothing else goes before its outcome is known."""
        self._trying = self.state in {State.HALF_OPEN, State.TRIAL} or not self._is_proven

    def trial_ended(self) -> None:
        """What was on its way never went out: the next one may."""
        self._trying = False
        self.on_change()

    def nothing_to_try(self) -> None:
        """A trial found nothing to send, now or soon: as far as is known, the peer is there.

        The first item that comes goes alone all the same, and shuts the gate again if it fails.
        """
        if self.state in {State.HALF_OPEN, State.TRIAL}:
            self._is_proven = False
            self._enter(State.CLOSED)

    # -- the watch ---------------------------------------------------------------------------

    def start(self) -> None:
        """Probe the peer, in a task, whenever the gate is not closed."""
        self._watch = asyncio.get_running_loop().create_task(self._watch_for_ever())

    async def stop(self) -> None:
        if self._watch is not None:
            await end(self._watch)

    async def _watch_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        took = 0.0
        while True:
            await self._blocked.wait()
            self._pauses += 1
            pause = full_jitter(self._pauses, first=FIRST_PAUSE, cap=self._longest_pause)
            await asyncio.sleep(max(0.0, pause - took))
            took = 0.0
            if self.state is State.HELD:
                self._enter(State.TRIAL)
            elif self.state is State.OPEN:
                began = loop.time()
                alive = await self._is_alive()
                took = loop.time() - began
                if alive and self.state is State.OPEN:
                    self._enter(State.HALF_OPEN)

    async def _is_alive(self) -> bool:
        """One probe; a failure of its own must not end the watch, or the gate would stay shut."""
        try:
            alive = await self._probe()
        except Exception:
            log.exception("probe.failed", peer=self._peer)
            return False
        log.info("peer.probed", peer=self._peer, alive=alive)
        return alive

    def _enter(self, state: State) -> None:
        before, self.state = self.state, state
        self._trying = False
        if state in {State.OPEN, State.HELD}:
            self._blocked.set()
        else:
            self._blocked.clear()
        if before is state:
            return
        if state is State.CLOSED:
            log.info("peer.regained", peer=self._peer, was=before)
        elif state is State.HELD and before is not State.TRIAL:
            log.error("peer.refused_us", peer=self._peer)
        elif state is State.OPEN and before is State.CLOSED:
            log.warning("peer.lost", peer=self._peer)
        if state not in {State.OPEN, State.HELD}:
            self.on_change()
