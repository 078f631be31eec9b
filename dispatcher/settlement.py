"""What becomes of a hand-over by the outcome of its call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.jobs import updates
from common.jobs.lifecycle import Report, Source, Status
from common.outbox.consumer import Consumer
from common.outbox.outbox import Outbox
from common.runtime.batching import Batcher
from common.runtime.claim_loop import WorkSignal, persist
from common.runtime.retry import full_jitter
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.handover import Handover
from dispatcher.worker_api import Outcome, Verdict

_FIRST_RETRY: Final = 0.2
_LONGEST_RETRY: Final = 4.0

_EVENTS: Final = {
    Verdict.TAKEN: "handover.delivered",
    Verdict.REFUSED: "handover.refused",
    Verdict.NOT_TAKEN: "handover.retried",
    Verdict.IN_DOUBT: "handover.doubted",
    Verdict.HELD: "handover.held",
}

log = get_logger()


@dataclass(kw_only=True, eq=False)
class Settlement:
    """Settles hand-overs; one in doubt waits `grace` seconds for proof."""

    database: Database
    outbox: Outbox[Handover]
    consumer: Consumer[Handover]
    notifier: ChannelNotifier
    signal: WorkSignal
    grace: float

    def __post_init__(self) -> None:
        self._done = Batcher[Handover, None](self._settle_done)

    def begin(self, item: Handover, outcome: Outcome) -> asyncio.Task[None]:
        """Report to the breaker at once, since writing may take long; the task writes."""
        corrected, write = self._report(item, outcome)
        return asyncio.get_running_loop().create_task(self._write(write, corrected=corrected))

    def _report(
        self, item: Handover, outcome: Outcome
    ) -> tuple[bool, Callable[[], Awaitable[object]]]:
        """Whether the outcome shows that held hand-overs can be released, and what to write."""
        corrected, outbox = False, self.outbox
        match outcome.verdict:
            case Verdict.TAKEN:
                corrected = self.consumer.succeeded(item)
                write: Callable[[], Awaitable[object]] = partial(self._done, item)
            case Verdict.REFUSED:
                # its word on one job shows that it is there and accepts us
                corrected = outcome.reachable and self.consumer.succeeded(item)
                if not outcome.reachable:
                    self.consumer.untried(item)
                write = partial(self._settle_refused, item, outcome.reason)
            case Verdict.NOT_TAKEN:
                self.consumer.failed(item, outcome)
                if outcome.reachable:
                    delay = self._delay(item, outcome)
                    write = partial(outbox.retry, [item], delay, outcome.reason)
                else:
                    # nothing was sent, and the breaker decides when anything is: so the item stays
                    # as it was
                    write = partial(outbox.release, [item], outcome.reason)
            case Verdict.IN_DOUBT:
                self.consumer.failed(item, outcome)
                write = partial(outbox.doubt, [item], self.grace, outcome.reason)
            case Verdict.HELD:
                if not self.consumer.was_held(item):
                    metrics.HELD.inc()
                self.consumer.refused(item)
                write = partial(outbox.hold, [item], outcome.reason)
        return corrected, write

    def _delay(self, item: Handover, outcome: Outcome) -> float:
        """Seconds until the item is due again, when the claim loop is woken."""
        delay = full_jitter(item.attempts, first=_FIRST_RETRY, cap=_LONGEST_RETRY)
        delay = max(delay, outcome.retry_after or 0.0)
        asyncio.get_running_loop().call_later(delay, self.signal.wake)
        return delay

    async def _write(self, write: Callable[[], Awaitable[object]], *, corrected: bool) -> None:
        await persist(write)
        if corrected:
            await persist(self._release_held)

    async def _release_held(self) -> None:
        if released := await self.consumer.release_held():
            log.info("handovers.released", count=released)
        metrics.HELD.set(0)

    async def _settle_done(self, items: Sequence[Handover]) -> Sequence[None]:
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


def record(item: Handover, outcome: Outcome, seconds: float) -> None:
    """Count and log the outcome of a call that took so many seconds."""
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
