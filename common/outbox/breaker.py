"""A circuit breaker in front of a peer: a peer that is down costs a few probes, nothing more.

One per process and peer; it holds no item and knows no database. `docs/states.md` has the diagram.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Any, Final

from prometheus_client import Gauge

from common.runtime.claim_loop import WorkSignal
from common.runtime.retry import full_jitter
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 4.0
"""Seconds from one probe to the next, each counted from its start; 5 s are promised."""

log = get_logger()


class BreakerState(StrEnum):
    """States of a circuit breaker."""

    CLOSED = "closed"
    """Everything may be sent; only one item at first, if the breaker closed without a success."""

    OPEN = "open"
    """Nothing is sent, for one of the `Reason`s."""

    HALF_OPEN = "half_open"
    """One item at a time, until one is taken or there is none to send."""


class Reason(StrEnum):
    """Why a breaker opened."""

    UNREACHABLE = "unreachable"
    """The peer does not answer, or fails again and again: half-open once a probe is answered."""

    REFUSED = "refused"
    """The peer refuses us (wrong key or address), which no probe shows: half-open after a pause."""


class Allowance(StrEnum):
    """How much may be sent."""

    NOTHING = "nothing"
    ONE = "one"
    ALL = "all"


_LABELS: Final = {
    (BreakerState.OPEN, Reason.REFUSED): "held",
    (BreakerState.HALF_OPEN, Reason.REFUSED): "trial",
}

LABELS: Final = (*BreakerState, *_LABELS.values())
"""The states as metrics, probes and logs have always named them."""


def show_state(gauge: Gauge, present: str) -> None:
    """Set a gauge by state to 1 for the label `present`."""
    for label in LABELS:
        gauge.labels(label).set(label == present)


class CircuitBreaker:
    """Learns the outcome of each delivery, and says how much may be sent."""

    def __init__(
        self,
        peer: str,
        *,
        probe: Callable[[], Awaitable[bool]],
        signal: WorkSignal,
        gauge: Gauge | None = None,
        threshold: int = 5,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        """`probe` asks the peer for a sign of life, cheaply; `signal` is woken when more may be
        sent than before; `gauge` shows the state as one of `LABELS`. `threshold` different items
        that fail in a row open the breaker, or twice as many failures of at least two: of a lane,
        only the first ones are tried."""
        self.state = BreakerState.CLOSED
        self.reason = Reason.UNREACHABLE
        self._peer = peer
        self._probe = probe
        self._signal = signal
        self._gauge = gauge
        self._threshold = threshold
        self._longest_pause = longest_pause
        self._failing: Counter[Hashable] = Counter()
        self._is_proven = True
        self._acquired = False
        self._pauses = 0
        self._paused_until = 0.0
        self._opened = asyncio.Event()
        if gauge is not None:
            show_state(gauge, self.label)

    # -- what may be sent --------------------------------------------------------------------

    @property
    def is_reachable(self) -> bool:
        """Whether, as far as is known, the peer answers and accepts us."""
        return self.label in {BreakerState.CLOSED, BreakerState.HALF_OPEN}

    @property
    def label(self) -> str:
        """One of `LABELS`."""
        return _LABELS.get((self.state, self.reason), self.state)

    def allowance(self) -> Allowance:
        """How much may be sent now."""
        paused = asyncio.get_running_loop().time() < self._paused_until
        if self._acquired or paused or self.state is BreakerState.OPEN:
            return Allowance.NOTHING
        return Allowance.ONE if self._sends_one else Allowance.ALL

    @property
    def _sends_one(self) -> bool:
        return self.state is BreakerState.HALF_OPEN or not self._is_proven

    async def check(self) -> Mapping[str, Any]:
        """The peer's part of a probe of this process."""
        return {"ok": self.is_reachable, "gate": self.label}

    def acquire(self) -> None:
        """Items are about to be sent; if only one may, nothing follows before its outcome."""
        self._acquired = self._sends_one

    def release(self) -> None:
        """What was about to be sent never went out: the next one may."""
        self._acquired = False
        self._signal.wake()

    # -- outcomes ----------------------------------------------------------------------------

    def succeeded(self) -> None:
        """The peer took something, so it is there and accepts us."""
        self._failing.clear()
        self._pauses = 0
        self._is_proven = True
        was_paused, self._paused_until = self._paused_until > 0.0, 0.0
        self._enter(BreakerState.CLOSED)
        if was_paused:
            self._signal.wake()

    def failed(self, item: Hashable, retry_after: float | None = None) -> None:
        """`item` was not taken, or its outcome is unknown.

        `retry_after`, in seconds, pauses everything if another item has failed since the last
        success; otherwise it may concern this item alone.
        """
        self._failing[item] += 1
        several = len(self._failing) > 1
        if retry_after and several:
            loop = asyncio.get_running_loop()
            self._paused_until = max(self._paused_until, loop.time() + retry_after)
            loop.call_later(retry_after, self._signal.wake)
        in_a_row = len(self._failing) >= self._threshold or (
            several and self._failing.total() >= 2 * self._threshold
        )
        if self.state is not BreakerState.CLOSED or not self._is_proven or in_a_row:
            self._enter(BreakerState.OPEN, Reason.UNREACHABLE)

    def unreachable(self) -> None:
        """There was no connection to the peer."""
        self._enter(BreakerState.OPEN, Reason.UNREACHABLE)

    def refused(self) -> None:
        """The peer refused us, not the item."""
        self._enter(BreakerState.OPEN, Reason.REFUSED)

    def nothing_to_send(self) -> None:
        """Half-open, and no item is due now or soon: as far as is known, the peer is there.

        The first item still goes alone, and opens the breaker again if it fails.
        """
        if self.state is BreakerState.HALF_OPEN:
            self._is_proven = False
            self._enter(BreakerState.CLOSED)

    # -- probing -----------------------------------------------------------------------------

    def probing(self) -> AbstractAsyncContextManager[None]:
        """Probe the peer in the background whenever the breaker is open."""
        return in_background(self._probe_for_ever())

    async def _probe_for_ever(self) -> None:
        clock = asyncio.get_running_loop().time
        took = 0.0
        while True:
            await self._opened.wait()
            self._pauses += 1
            pause = full_jitter(self._pauses, first=FIRST_PAUSE, cap=self._longest_pause)
            await asyncio.sleep(max(0.0, pause - took))
            took = 0.0
            if self.label == "held":
                self._enter(BreakerState.HALF_OPEN)
            elif self.label == "open":
                began = clock()
                alive = await self._is_alive()
                took = clock() - began
                if alive and self.label == "open":  # still, after the probe
                    self._enter(BreakerState.HALF_OPEN)

    async def _is_alive(self) -> bool:
        """One probe. An exception must not end the probing, or the breaker would stay open."""
        try:
            alive = await self._probe()
        except Exception:
            log.exception("probe.failed", peer=self._peer)
            return False
        log.info("peer.probed", peer=self._peer, alive=alive)
        return alive

    def _enter(self, state: BreakerState, reason: Reason | None = None) -> None:
        before, was = self.label, self.state
        self.state, self.reason = state, reason or self.reason
        self._acquired = False
        if state is BreakerState.OPEN:
            self._opened.set()
        else:
            self._opened.clear()
        if self.label == before:
            return
        if self._gauge is not None:
            show_state(self._gauge, self.label)
        if state is BreakerState.CLOSED:
            log.info("peer.regained", peer=self._peer, was=before)
        elif self.label == "held" and before != "trial":
            log.error("peer.refused_us", peer=self._peer)
        elif self.label == "open" and was is BreakerState.CLOSED:
            log.warning("peer.lost", peer=self._peer)
        if state is not BreakerState.OPEN:
            self._signal.wake()
