"""Send mails: claim, call, settle. No transaction is open across a call."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from sqlalchemy import case, func, select

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.tables import jobs
from common.outbox.consumer import Intake
from common.outbox.outbox import Claimed, Outbox
from common.runtime.claim_loop import persist
from common.runtime.retry import full_jitter
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.answers import Answer, Verdict
from notifier.mailjet import BATCH, Mailjet
from notifier.messages import MAX_DETAILS, Mail, write_mail

SEND_ALONE: Final = "the batch was refused as a whole: to be sent alone"

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 4.0
_ALONE_AT_ONCE: Final = 8

_EVENTS: Final = {
    Verdict.SENT: "mail.sent",
    Verdict.FAILED: "mail.refused",
    Verdict.NOT_TAKEN: "mail.retried",
    Verdict.IN_DOUBT: "mail.doubted",
    Verdict.HELD: "mail.held",
    Verdict.ALONE: "mail.singled_out",
}

_LENGTH: Final = func.length(jobs.c.runtime_details)
_DETAILS: Final = case(
    (_LENGTH > MAX_DETAILS, func.substr(jobs.c.runtime_details, _LENGTH - MAX_DETAILS)),
    else_=jobs.c.runtime_details,
)
"""What a mail shows of them, and one character more, which tells that there are more."""

Batch = list[Claimed]

log = get_logger()


class Deliverer:
    """Sends claimed mails in batches, one request each."""

    def __init__(
        self,
        *,
        database: Database,
        outbox: Outbox,
        intake: Intake,
        mailjet: Mailjet,
        lookup_wait: float,
    ) -> None:
        """`lookup_wait`: seconds after which a mail in doubt is looked up."""
        self._database = database
        self._outbox = outbox
        self._intake = intake
        self._mailjet = mailjet
        self._lookup_wait = lookup_wait

    async def take(self, _: int) -> list[Batch]:
        """Claim up to a batch; what is to be sent alone becomes a batch of its own.

        More of those than may go at once are one batch, too, which `deliver` gives back.
        """
        together: Batch = []
        alone: Batch = []
        for item in await self._intake.take(BATCH):
            (alone if self._goes_alone(item) else together).append(item)
        batches = [[item] for item in alone[:_ALONE_AT_ONCE]]
        return [*batches, *filter(None, (together, alone[_ALONE_AT_ONCE:]))]

    def _goes_alone(self, item: Claimed) -> bool:
        return item.row["last_error"] == SEND_ALONE or self._intake.was_held(item)

    async def give_back(self, batch: Batch) -> None:
        """Return claimed mails unsent."""
        for item in batch:
            self._intake.untried(item)
        await persist(lambda: self._outbox.release(batch))

    async def deliver(self, batch: Batch) -> None:
        """Send one batch and settle each of its mails."""
        if len(batch) > 1 and self._goes_alone(batch[0]):
            await self.give_back(batch)
            return
        try:
            mails = await self._write_mails(batch)
        except DatabaseUnavailable:
            await self.give_back(batch)
            return
        except asyncio.CancelledError:
            await self.give_back(batch)
            raise
        except Exception:
            await self._postpone(batch)
            raise
        started = time.monotonic()
        answers = [Answer(Verdict.IN_DOUBT, "the call was cut short")] * len(batch)
        try:
            answers = await self._mailjet.send(mails)
        finally:
            # also when the call was cut short by a cancellation, which the settlement outlives
            seconds = time.monotonic() - started
            metrics.REQUEST_SECONDS.observe(seconds)
            for item, answer in zip(batch, answers, strict=True):
                if answer.verdict is Verdict.HELD and not self._intake.was_held(item):
                    metrics.HELD.inc()
                _record(item, answer, seconds)
            try:
                await self._settle(batch, answers)
            finally:
                await self._report(batch[0], answers)

    async def _postpone(self, batch: Batch) -> None:
        """Nothing went out, and nobody knows because of which mail: later, each by itself."""
        for item in batch:
            self._intake.untried(item)
        await persist(lambda: self._outbox.retry(batch, _delay(batch), SEND_ALONE))

    async def _write_mails(self, batch: Batch) -> list[Mail]:
        """The mails with what is known of their jobs now."""
        wanted = select(jobs.c.id, jobs.c.job_name, _DETAILS.label("runtime_details")).where(
            jobs.c.id.in_([item.job_id for item in batch])
        )
        async with self._database.reading() as connection:
            found = {row.id: row for row in (await connection.execute(wanted)).all()}
        return [_write_mail(item, found.get(item.job_id)) for item in batch]

    async def _settle(self, batch: Batch, answers: Sequence[Answer]) -> None:
        """Settle what was answered alike at once, so that a batch that waits stays a batch."""
        alike: dict[Answer, list[Claimed]] = {}
        for item, answer in zip(batch, answers, strict=True):
            alike.setdefault(answer, []).append(item)
        for answer, items in alike.items():
            await persist(partial(self._settle_alike, items, answer))

    async def _settle_alike(self, items: list[Claimed], answer: Answer) -> None:
        match answer.verdict:
            case Verdict.SENT:
                await self._outbox.done(items)
            case Verdict.FAILED:
                await self._outbox.fail(items, answer.reason)
            case Verdict.NOT_TAKEN:
                delay = max(_delay(items), answer.retry_after or 0.0)
                await self._outbox.retry(items, delay, answer.reason)
            case Verdict.IN_DOUBT:
                await self._outbox.doubt(items, self._lookup_wait, answer.reason)
            case Verdict.HELD:
                await self._outbox.hold(items, answer.reason)
            case Verdict.ALONE:
                await self._outbox.retry(items, 0.0, SEND_ALONE)

    async def _report(self, item: Claimed, answers: Sequence[Answer]) -> None:
        """Tell the gate what the request as a whole showed."""
        answer = answers[0]
        verdicts = {answer.verdict for answer in answers}
        if verdicts & {Verdict.SENT, Verdict.FAILED, Verdict.ALONE}:
            if self._intake.succeeded(item):
                if released := await self._intake.release_held():
                    log.info("mails.released", count=released)
                metrics.HELD.set(0)
        elif Verdict.HELD in verdicts:
            self._intake.refused(item)
        elif not answer.reachable:
            self._intake.unreachable(item)
        else:
            self._intake.failed(item, answer.retry_after)


def _delay(items: Sequence[Claimed]) -> float:
    attempt = max(item.attempt for item in items)
    return full_jitter(attempt, first=_FIRST_RETRY, cap=_LONGEST_RETRY)


def _write_mail(item: Claimed, job: Any) -> Mail:
    return write_mail(
        recipient=item.row["recipient"],
        custom_id=item.row["custom_id"],
        correlation_id=item.correlation_id,
        job_id=item.job_id,
        job_name=job and job.job_name,
        status=item.row["kind"],
        details=job and job.runtime_details,
    )


def _record(item: Claimed, answer: Answer, seconds: float) -> None:
    metrics.MAILS.labels(answer.verdict).inc()
    write = {
        Verdict.SENT: log.info,
        Verdict.ALONE: log.info,
        Verdict.HELD: log.error,
    }.get(answer.verdict, log.warning)
    write(
        _EVENTS[answer.verdict],
        job_id=item.job_id,
        kind=item.row["kind"],
        custom_id=item.row["custom_id"],
        correlation_id=item.correlation_id,
        attempt=item.attempt,
        duration=round(seconds, 4),
        reason=answer.reason or None,
    )
