"""Hand jobs over: claim, call, settle. No transaction is open across a call.

The unit of work is what is due of one lane (a user's hand-overs of one priority), one call after
the other: so they arrive in the order of their submission.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.database.errors import DatabaseUnavailable
from common.outbox.consumer import Consumer
from common.outbox.laned import LanedOutbox
from common.runtime.claim_loop import WorkSignal, persist
from common.telemetry.logs import get_logger
from dispatcher.handover import Handover, Lane, in_lanes
from dispatcher.limit import AdaptiveConcurrencyLimit
from dispatcher.settlement import Settlement, record
from dispatcher.worker_api import Outcome, Verdict, WorkerApi

_UNSETTLED_PER_CALL: Final = 8
_LANE_SECONDS: Final = 1.0
"""Time after its claim in which another call of a lane may begin, since leases do not last long."""

_LOOK_EVERY: Final = 0.05
"""Seconds after which it is asked again which jobs of those that wait their users still want."""

_PATIENCE: Final = 5.0
ENOUGH_ATTEMPTS: Final = 8
"""After which it may be the job, not the peer, for which a hand-over is not taken."""

_LONG_WAIT: Final = 4.0
"""Seconds: a peer that asks for more before it takes one job may take others before."""

_ENDED: Final = frozenset({Verdict.TAKEN, Verdict.REFUSED})
_TO_BE_REPEATED: Final = frozenset({Verdict.NOT_TAKEN, Verdict.HELD})

log = get_logger()


def patience(deadline: float) -> float:
    """Seconds for which the others of its lane wait for a call whose total deadline this is."""
    return max(_PATIENCE, deadline / 4)


@dataclass(slots=True)
class _Run:
    """The delivery of a lane: what is `waiting`, what is being written, when it was claimed."""

    waiting: deque[Handover]
    writes: list[asyncio.Task[None]]
    began: float
    looked: float

    def begin(self, write: Coroutine[Any, Any, None]) -> None:
        self.writes.append(asyncio.get_running_loop().create_task(write))


@dataclass(kw_only=True, eq=False)
class Forwarder:
    """The courier of hand-overs; the others of a lane wait `patience` seconds for a call."""

    outbox: LanedOutbox[Handover]
    consumer: Consumer[Handover]
    settlement: Settlement
    worker_api: WorkerApi
    limit: AdaptiveConcurrencyLimit
    signal: WorkSignal
    patience: float

    def __post_init__(self) -> None:
        self._calling = 0
        self._claims = 0

    def slots(self, under_way: int) -> int:
        """A lane whose calls have ended frees its slot; those not settled yet are bounded, too."""
        limit = self.limit.current
        unsettled = under_way - self._calling
        return min(limit - self._calling, limit * _UNSETTLED_PER_CALL - unsettled)

    async def take(self, limit: int) -> Sequence[Lane]:
        """Claim what the breaker lets through; each lane has its slot from now on."""
        lanes = in_lanes(await self.consumer.take(limit))
        self._claims += 1
        self._calling += len(lanes)
        return lanes

    async def give_back(self, lane: Lane) -> None:
        self._calling -= 1
        for item in lane:
            self.consumer.untried(item)
        await persist(lambda: self.outbox.release(lane))

    async def deliver(self, lane: Lane) -> None:
        """Send one after the other, until one is not taken; the rest is given back."""
        began = time.monotonic()
        run = _Run(deque(lane), [], began, looked=began)
        claims = self._claims
        try:
            while run.waiting:
                item = run.waiting.popleft()
                outcome = await self._send(item, run)
                if outcome.verdict not in _ENDED:
                    if _may_be_to_blame(item, outcome):
                        await self._try_behind(item, run)
                    break
                if not self.consumer.flows or time.monotonic() > run.began + _LANE_SECONDS:
                    break
                await self._drop_unwanted(run)
        finally:
            self._calling -= 1
            self.signal.slot_freed()
            self._give_back_rest(run)
            await asyncio.gather(*run.writes)
            if self._claims != claims:  # and saw those behind, perhaps, which had to wait
                self.signal.wake()

    async def _drop_unwanted(self, run: _Run) -> None:
        """Forget those that wait whose jobs were cancelled or deleted since they were claimed."""
        if not run.waiting or time.monotonic() < run.looked + _LOOK_EVERY:
            return
        try:
            run.waiting = deque(await self.outbox.still_claimed(run.waiting))
        except DatabaseUnavailable:
            self._give_back_rest(run)
        run.looked = time.monotonic()

    async def _send(self, item: Handover, run: _Run) -> Outcome:
        """Send one and begin to settle it, also when the call is cancelled."""
        timer = None
        if run.waiting:
            # before others need not wait for them any more, either
            early = self.patience / 2
            timer = asyncio.get_running_loop().call_later(early, self._give_back_rest, run)
        started = time.monotonic()
        outcome = Outcome(Verdict.IN_DOUBT, "the call was cut short")
        try:
            outcome = await self.worker_api.submit(item.payload, item.number, item.correlation_id)
        finally:
            if timer is not None:
                timer.cancel()
            seconds = time.monotonic() - started
            self.limit.took(seconds, timed_out=outcome.timed_out)
            record(item, outcome, seconds)
            run.writes.append(self.settlement.begin(item, outcome))
        return outcome

    def _give_back_rest(self, run: _Run) -> None:
        if rest := [*run.waiting]:
            run.waiting.clear()
            run.begin(self._release(rest))

    async def _release(self, rest: Lane) -> None:
        await persist(lambda: self.outbox.release(rest))
        self.signal.wake()

    async def _try_behind(self, failed: Handover, run: _Run) -> None:
        """Send what is behind directly after one that the peer does not take.

        If it is taken, it is not the peer that fails, and those before it hold up nobody any more.
        """
        passed = [failed]
        while behind := await self._next_behind(passed[-1], run):
            outcome = await self._send(behind, run)
            if outcome.verdict in _ENDED:
                log.warning("handovers.set_aside", job_ids=[item.job_id for item in passed])
                run.begin(persist(lambda: self.outbox.set_aside(passed)))
                return
            passed.append(behind)
            if not _may_be_to_blame(behind, outcome):
                return

    async def _next_behind(self, item: Handover, run: _Run) -> Handover | None:
        await self._drop_unwanted(run)
        if run.waiting:
            return run.waiting.popleft()
        found = await self.outbox.claim_behind(item)
        if not found:
            found = await self.outbox.claim_held_behind(item)
            self.consumer.note_held(found)
        return found[0] if found else None


def _may_be_to_blame(item: Handover, outcome: Outcome) -> bool:
    """Whether it may be the job, not the peer, for which a hand-over is not taken."""
    return (
        item.user_id is not None
        and outcome.verdict in _TO_BE_REPEATED
        and outcome.reachable
        and (item.attempts >= ENOUGH_ATTEMPTS or (outcome.retry_after or 0.0) > _LONG_WAIT)
    )
