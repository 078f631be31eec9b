"""Hand jobs over: claim, call, settle. No transaction is open across a call."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database, utc_now
from common.database.notify import Notifier
from common.jobs import updates
from common.jobs.lifecycle import Report, Source, Status
from common.outbox.consumer import Intake
from common.outbox.outbox import FAILED, Claimed, Outbox
from common.runtime.batching import Coalescer
from common.runtime.claim_loop import persist
from common.runtime.retry import full_jitter
from common.telemetry.logs import get_logger
from dispatcher import metrics
from dispatcher.answers import Answer, Verdict
from dispatcher.pace import Pace
from dispatcher.worker_api import UnreadablePayload, WorkerApi, body_of

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


class Forwarder:
    """Delivers claimed hand-overs; at most `pace.limit` calls at once."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        intake: Intake,
        worker_api: WorkerApi,
        pace: Pace,
        notifier: Notifier,
        grace: float,
    ) -> None:
        """`grace`: seconds for which a hand-over in doubt waits for proof."""
        self._database = database
        self._outbox = outbox
        self._intake = intake
        self._worker_api = worker_api
        self._pace = pace
        self._notifier = notifier
        self._grace = grace
        self._calling = 0
        self._settling = 0
        self._settle_taken = Coalescer[Claimed, None](self._settle_all_taken)
        self.on_free_slot: Callable[[], None] = lambda: None

    def slots(self) -> int:
        """How many more may be taken now; what is called but not settled yet is bounded, too."""
        limit = self._pace.limit
        room = limit * _UNSETTLED_PER_CALL - self._settling
        return min(limit - self._calling, room)

    async def take(self, limit: int) -> Sequence[Claimed]:
        """Claim what the gate lets through; each claimed item has its slot from now on."""
        items = await self._intake.take(limit)
        self._calling += len(items)
        return items

    async def give_back(self, item: Claimed) -> None:
        """Return a claimed item untried."""
        self._calling -= 1
        self._intake.untried(item)
        await persist(lambda: self._outbox.release([item]))

    async def deliver(self, item: Claimed) -> None:
        """Hand one job over and settle what came of it."""
        started = time.monotonic()
        answer = Answer(Verdict.IN_DOUBT, "the call was cut short")
        try:
            answer = await self._submit(item)
        finally:
            # also when the call was cut short by a cancellation, which the settlement outlives
            seconds = time.monotonic() - started
            self._calling -= 1
            self._settling += 1
            try:
                self._pace.took(seconds, timed_out=answer.timed_out)
                self.on_free_slot()
                _record(item, answer, seconds)
                await self._settle(item, answer)
            finally:
                self._settling -= 1

    async def _submit(self, item: Claimed) -> Answer:
        try:
            body = body_of(item.row["payload"], item.row["number"])
        except UnreadablePayload:
            return Answer(
                Verdict.REFUSED, "what was stored of this job is unreadable", reachable=False
            )
        return await self._worker_api.submit(body, item.correlation_id)

    # -- settling ----------------------------------------------------------------------------

    async def _settle(self, item: Claimed, answer: Answer) -> None:
        """Tell the gate at once, whatever becomes of the writing; then write."""
        match answer.verdict:
            case Verdict.TAKEN:
                mended = self._intake.succeeded(item)
                await persist(lambda: self._settle_taken(item))
                if mended:
                    await persist(self._release_held)
            case Verdict.REFUSED:
                # its word on one job shows that it is there and knows us
                mended = answer.reachable and self._intake.succeeded(item)
                if not answer.reachable:
                    self._intake.untried(item)
                await persist(lambda: self._settle_refused(item, answer.reason))
                if mended:
                    await persist(self._release_held)
            case Verdict.NOT_TAKEN:
                self._note_failure(item, answer)
                delay = _delay(item, answer)
                await persist(lambda: self._outbox.retry([item], delay, answer.reason))
            case Verdict.IN_DOUBT:
                self._note_failure(item, answer)
                await persist(lambda: self._outbox.doubt([item], self._grace, answer.reason))
            case Verdict.HELD:
                if not self._intake.was_held(item):
                    metrics.HELD.inc()
                self._intake.refused(item)
                await persist(lambda: self._outbox.hold([item], answer.reason))

    async def _release_held(self) -> None:
        if released := await self._intake.release_held():
            log.info("handovers.released", count=released)
        metrics.HELD.set(0)

    def _note_failure(self, item: Claimed, answer: Answer) -> None:
        if answer.reachable:
            self._intake.failed(item, answer.retry_after)
        else:
            self._intake.unreachable(item)

    async def _settle_all_taken(self, items: Sequence[Claimed]) -> Sequence[None]:
        await self._outbox.done(items)
        return [None] * len(items)

    async def _settle_refused(self, item: Claimed, words: str) -> None:
        """The job ends in `error` with the peer's words, in one transaction with its hand-over."""

        async def settle(tx: AsyncConnection) -> int:
            # none: a worker was heard meanwhile, or somebody else has the item by now
            return await self._outbox.settle_in(
                tx, [item], state=FAILED, settled_at=utc_now(), last_error=words
            )

        details = f"The worker-facing API refused the job: {words}"
        report = Report(Status.ERROR, details, Source.DISPATCHER)
        await updates.report(self._database, self._notifier, item.job_id, report, settle=settle)
        self._outbox.forget([item])


def _delay(item: Claimed, answer: Answer) -> float:
    delay = full_jitter(item.attempt, first=_FIRST_RETRY, cap=_LONGEST_RETRY)
    return max(delay, answer.retry_after or 0.0)


def _record(item: Claimed, answer: Answer, seconds: float) -> None:
    metrics.HANDOVERS.labels(answer.verdict).inc()
    metrics.HANDOVER_SECONDS.observe(seconds)
    write = {Verdict.HELD: log.error, Verdict.TAKEN: log.info}.get(answer.verdict, log.warning)
    write(
        _EVENTS[answer.verdict],
        job_id=item.job_id,
        number=item.row["number"],
        correlation_id=item.correlation_id,
        attempt=item.attempt,
        duration=round(seconds, 4),
        reason=answer.reason or None,
    )
