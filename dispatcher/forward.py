"""Hand jobs over: claim, call, settle. No transaction is open across a call."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.jobs import updates
from common.jobs.lifecycle import Report, Source, Status
from common.outbox.consumer import Consumer
from common.outbox.item import OutboxItem
from common.outbox.outbox import Outbox
from common.runtime.batching import Batcher
from common.runtime.claim_loop import WorkSignal, persist
from common.runtime.retry import full_jitter
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.worker_api import Outcome, Verdict, WorkerApi

_FIRST_RETRY: Final = 0.2
_LONGEST_RETRY: Final = 4.0
_UNSETTLED_PER_CALL: Final = 8

_EVENTS: Final = {
    Verdict.TAKEN: "handover.delivered",
    Verdict.REFUSED: "handover.refused",
    Verdict.NOT_TAKEN: "handover.retried",
    Verdict.IN_DOUBT: "handover.doubted",
    Verdict.HELD: "handover.held",
}

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover(OutboxItem):
    """A claimed hand-over: `payload` is what the peer gets, under the delivery number `number`."""

    job_id: int
    number: int
    payload: str
    turn: float | None

    @property
    def place(self) -> tuple[float, ...]:
        return (self.turn or 0.0, -self.priority, self.id)


class AdaptiveConcurrencyLimit:
    """How many submissions may be under way at once: between 1 and `most`.

    The peer handles one submission at a time, so the more are sent at once, the longer each takes.
    The limit grows by one with each fast answer, and is halved before the deadline is near.
    """

    def __init__(self, most: int, *, deadline: float) -> None:
        """`deadline`, in seconds, is that of one submission; a quarter of it counts as slow."""
        self._most = most
        self._slow = deadline / 4
        self._limit = float(most)

    @property
    def current(self) -> int:
        return int(self._limit)

    def took(self, seconds: float, *, timed_out: bool) -> None:
        """A submission took this long."""
        if timed_out or seconds > self._slow:
            self._limit = max(1.0, self._limit / 2)
        else:
            self._limit = min(float(self._most), self._limit + 1.0)


@dataclass(kw_only=True, eq=False)
class Forwarder:
    """The courier of hand-overs; one in doubt waits `grace` seconds for proof."""

    database: Database
    outbox: Outbox[Handover]
    consumer: Consumer[Handover]
    worker_api: WorkerApi
    limit: AdaptiveConcurrencyLimit
    notifier: ChannelNotifier
    signal: WorkSignal
    grace: float

    def __post_init__(self) -> None:
        self._calling = 0
        self._due_together = 0.0
        self._settle_taken = Batcher[Handover, None](self._settle_all_taken)

    def slots(self, under_way: int) -> int:
        """A call that has ended frees its slot; those not settled yet are bounded, too."""
        limit = self.limit.current
        unsettled = under_way - self._calling
        return min(limit - self._calling, limit * _UNSETTLED_PER_CALL - unsettled)

    async def take(self, limit: int) -> Sequence[Handover]:
        """Claim what the breaker lets through; each claimed item has its slot from now on."""
        items = await self.consumer.take(limit)
        self._calling += len(items)
        return items

    async def give_back(self, item: Handover) -> None:
        self._calling -= 1
        self.consumer.untried(item)
        await persist(lambda: self.outbox.release([item]))

    async def deliver(self, item: Handover) -> None:
        started = time.monotonic()
        outcome = Outcome(Verdict.IN_DOUBT, "the call was cut short")
        try:
            outcome = await self.worker_api.submit(item.payload, item.number, item.correlation_id)
        finally:
            # also when a cancellation cut the call short, which the settlement outlives
            seconds = time.monotonic() - started
            self._calling -= 1
            self.limit.took(seconds, timed_out=outcome.timed_out)
            self.signal.slot_freed()
            _record(item, outcome, seconds)
            await self._settle(item, outcome)

    # -- settling ----------------------------------------------------------------------------

    async def _settle(self, item: Handover, outcome: Outcome) -> None:
        """Report to the breaker at once, since writing may take long; then write."""
        corrected = False
        match outcome.verdict:
            case Verdict.TAKEN:
                corrected = self.consumer.succeeded(item)
                await persist(lambda: self._settle_taken(item))
            case Verdict.REFUSED:
                # its word on one job shows that it is there and accepts us
                corrected = outcome.reachable and self.consumer.succeeded(item)
                if not outcome.reachable:
                    self.consumer.untried(item)
                await persist(lambda: self._settle_refused(item, outcome.reason))
            case Verdict.NOT_TAKEN:
                self.consumer.failed(item, outcome)
                if outcome.reachable:
                    delay = self._delay(item, outcome)
                    await persist(lambda: self.outbox.retry([item], delay, outcome.reason))
                else:
                    # nothing was sent, and the breaker decides when anything is: so the item stays
                    # as it was, and keeps its place
                    await persist(lambda: self.outbox.release([item], outcome.reason))
            case Verdict.IN_DOUBT:
                self.consumer.failed(item, outcome)
                await persist(lambda: self.outbox.doubt([item], self.grace, outcome.reason))
            case Verdict.HELD:
                if not self.consumer.was_held(item):
                    metrics.HELD.inc()
                self.consumer.refused(item)
                await persist(lambda: self.outbox.hold([item], outcome.reason))
        if corrected:
            await persist(self._release_held)

    def _delay(self, item: Handover, outcome: Outcome) -> float:
        """Seconds until the item is due again.

        Where others fail as well, it is the peer: what fails together is due together, or items
        would overtake each other.
        """
        now = time.monotonic()
        delay = full_jitter(item.attempts, first=_FIRST_RETRY, cap=_LONGEST_RETRY)
        if self.consumer.several_fail and self._due_together > now:
            delay = self._due_together - now
        delay = max(delay, outcome.retry_after or 0.0)
        self._due_together = now + delay
        return delay

    async def _release_held(self) -> None:
        if released := await self.consumer.release_held():
            log.info("handovers.released", count=released)
        metrics.HELD.set(0)

    async def _settle_all_taken(self, items: Sequence[Handover]) -> Sequence[None]:
        await self.outbox.done(items)
        return [None] * len(items)

    async def _settle_refused(self, item: Handover, words: str) -> None:
        """End the job in `error` with the peer's words, in one transaction with its hand-over."""

        async def settle(tx: AsyncConnection) -> int:
            # none: a worker was heard meanwhile, or another daemon has the item by now
            return await self.outbox.fail([item], words, tx)

        details = f"The worker-facing API refused the job: {words}"
        report = Report(Status.ERROR, details, Source.DISPATCHER)
        await updates.report(self.database, self.notifier, item.job_id, report, settle=settle)


def _record(item: Handover, outcome: Outcome, seconds: float) -> None:
    metrics.HANDOVERS.labels(outcome.verdict).inc()
    metrics.HANDOVER_SECONDS.observe(seconds)
    write = {Verdict.HELD: log.error, Verdict.TAKEN: log.info}.get(outcome.verdict, log.warning)
    write(
        _EVENTS[outcome.verdict],
        job_id=item.job_id,
        number=item.number,
        correlation_id=item.correlation_id,
        attempt=item.attempts,
        duration=round(seconds, 4),
        reason=outcome.reason or None,
    )
