"""Send mails: claim, call, settle. No transaction is open across a call."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from common.database.errors import DatabaseUnavailable
from common.outbox.consumer import Consumer
from common.outbox.outbox import Outbox
from common.runtime.claim_loop import persist
from common.runtime.retry import full_jitter
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.compose import Composer, Stopped
from notifier.mailjet import BATCH, Mailjet, Outcome, Verdict
from notifier.messages import Mail, Message

REQUESTS_AT_ONCE: Final = 2

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 4.0
_ALONE_AT_ONCE: Final = 8
_REFUSED_AS_A_WHOLE: Final = "the batch was refused as a whole: to be sent alone"
_NOT_WRITTEN: Final = "a mail of the batch could not be written: to be sent alone"

_EVENTS: Final = {
    Verdict.SENT: "mail.sent",
    Verdict.FAILED: "mail.refused",
    Verdict.NOT_TAKEN: "mail.retried",
    Verdict.IN_DOUBT: "mail.doubted",
    Verdict.HELD: "mail.held",
    Verdict.ALONE: "mail.singled_out",
    Verdict.DROPPED: "mail.dropped",
}

Batch = list[Mail]

log = get_logger()


@dataclass(kw_only=True, eq=False)
class Deliverer:
    """The courier of mails, in batches of one request each.

    A mail in doubt is looked up after `lookup_wait` seconds.
    """

    outbox: Outbox[Mail]
    consumer: Consumer[Mail]
    mailjet: Mailjet
    composer: Composer
    lookup_wait: float

    def slots(self, under_way: int) -> int:
        return REQUESTS_AT_ONCE - under_way

    async def take(self, _: int) -> list[Batch]:
        """Claim up to a batch; each mail to be sent alone becomes a batch of its own.

        Those beyond what may go alone at once form one batch, which `deliver` gives back.
        """
        together: Batch = []
        alone: Batch = []
        for mail in await self.consumer.take(BATCH):
            (alone if self._goes_alone(mail) else together).append(mail)
        batches = [[mail] for mail in alone[:_ALONE_AT_ONCE]]
        return [*batches, *filter(None, (together, alone[_ALONE_AT_ONCE:]))]

    def _goes_alone(self, mail: Mail) -> bool:
        return mail.alone or self.consumer.was_held(mail)

    async def give_back(self, batch: Batch) -> None:
        for mail in batch:
            self.consumer.untried(mail)
        await persist(lambda: self.outbox.release(batch))

    async def deliver(self, batch: Batch) -> None:
        if len(batch) > 1 and self._goes_alone(batch[0]):
            await self.give_back(batch)
            return
        try:
            composed = await self.composer.compose(batch)
        except DatabaseUnavailable:
            await self.give_back(batch)
            return
        except asyncio.CancelledError:
            await self.give_back(batch)
            raise
        except Exception:
            await self._postpone(batch)
            raise
        await self._send(batch, composed)

    async def _send(self, batch: Batch, composed: Sequence[Message | Stopped]) -> None:
        """Send what is to be sent, and settle all."""
        messages = [item for item in composed if isinstance(item, Message)]
        sent = [Outcome(Verdict.IN_DOUBT, "the call was cut short")] * len(messages)
        started = time.monotonic()
        try:
            if messages:
                sent = await self.mailjet.send(messages)
        finally:
            # also when a cancellation cut the call short, which the settlement outlives
            seconds = time.monotonic() - started
            outcomes = _outcomes(composed, sent)
            if messages:
                metrics.REQUEST_SECONDS.observe(seconds)
            for mail, outcome in zip(batch, outcomes, strict=True):
                if outcome.verdict is Verdict.HELD and not self.consumer.was_held(mail):
                    metrics.HELD.inc()
                _record(mail, outcome, seconds)
            try:
                await self._settle(batch, outcomes)
            finally:
                await self._report(batch, outcomes)

    async def _postpone(self, batch: Batch) -> None:
        """Nothing was sent because of some mail of the batch: later, each by itself."""
        for mail in batch:
            self.consumer.untried(mail)
        await persist(partial(self._send_alone, batch, _delay(batch), _NOT_WRITTEN))

    async def _send_alone(self, batch: Sequence[Mail], delay: float, reason: str) -> None:
        await self.outbox.retry(batch, delay, reason, alone=True)

    async def _settle(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Settle equal outcomes together, so that a batch that waits stays a batch."""
        alike: dict[Outcome, list[Mail]] = {}
        for mail, outcome in zip(batch, outcomes, strict=True):
            alike.setdefault(outcome, []).append(mail)
        for outcome, mails in alike.items():
            await persist(partial(self._settle_alike, mails, outcome))

    async def _settle_alike(self, mails: list[Mail], outcome: Outcome) -> None:
        match outcome.verdict:
            case Verdict.SENT:
                await self.outbox.done(mails)
            case Verdict.FAILED:
                await self.outbox.fail(mails, outcome.reason)
            case Verdict.NOT_TAKEN:
                delay = max(_delay(mails), outcome.retry_after or 0.0)
                await self.outbox.retry(mails, delay, outcome.reason)
            case Verdict.IN_DOUBT:
                await self.outbox.doubt(mails, self.lookup_wait, outcome.reason)
            case Verdict.HELD:
                await self.outbox.hold(mails, outcome.reason)
            case Verdict.ALONE:
                await self._send_alone(mails, 0.0, _REFUSED_AS_A_WHOLE)
            case Verdict.DROPPED:
                await self.outbox.drop(mails, outcome.reason)

    async def _report(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Report to the breaker what the request as a whole showed."""
        tried = []
        for mail, outcome in zip(batch, outcomes, strict=True):
            if outcome.verdict is Verdict.DROPPED:
                self.consumer.untried(mail)
            else:
                tried.append((mail, outcome))
        if not tried:
            return
        mail, first = tried[0]
        verdicts = {outcome.verdict for _, outcome in tried}
        if verdicts & {Verdict.SENT, Verdict.FAILED, Verdict.ALONE}:
            if self.consumer.succeeded(mail):
                if released := await self.consumer.release_held():
                    log.info("mails.released", count=released)
                metrics.HELD.set(0)
        elif Verdict.HELD in verdicts:
            self.consumer.refused(mail)
        else:
            self.consumer.failed(mail, first)


def _outcomes(composed: Sequence[Message | Stopped], sent: Sequence[Outcome]) -> list[Outcome]:
    """One outcome for each mail of a batch, of which only the messages were sent."""
    of_messages = iter(sent)
    return [
        next(of_messages) if isinstance(item, Message) else Outcome(Verdict.DROPPED, item.reason)
        for item in composed
    ]


def _delay(mails: Sequence[Mail]) -> float:
    attempt = max(mail.attempts for mail in mails)
    return full_jitter(attempt, first=_FIRST_RETRY, cap=_LONGEST_RETRY)


def _record(mail: Mail, outcome: Outcome, seconds: float) -> None:
    metrics.MAILS.labels(outcome.verdict).inc()
    write = {
        Verdict.SENT: log.info,
        Verdict.ALONE: log.info,
        Verdict.DROPPED: log.info,
        Verdict.HELD: log.error,
    }.get(outcome.verdict, log.warning)
    write(
        _EVENTS[outcome.verdict],
        job_id=mail.job_id,
        kind=mail.kind,
        custom_id=mail.custom_id,
        correlation_id=mail.correlation_id,
        attempt=mail.attempts,
        duration=round(seconds, 4),
        reason=outcome.reason or None,
    )
