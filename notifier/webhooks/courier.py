"""Deliver messages to receivers: claim, call, settle. No transaction is open across a call.

The unit of work is what is due to one receiver, one message after another: so a receiver that
hangs holds up nobody else, and gets its messages in their order as long as it takes them.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from common.database.engine import Database
from common.database.tables import webhook_deliveries
from common.outbox.outbox import Outbox
from common.runtime.batching import Batcher
from common.runtime.claim_loop import WorkSignal, persist
from common.telemetry.logs import get_logger
from common.webhooks.keys import SecretBox, UnknownKey
from notifier import metrics
from notifier.webhooks.delivery import Delivery, Letter, read_body, read_letters
from notifier.webhooks.receiver import DEADLINE, Outcome, Receivers, Verdict
from notifier.webhooks.signing import sign
from notifier.webhooks.standing import Standings

AT_ONCE: Final = 512
"""Receivers that are called at a time."""

_CLAIM: Final = 200
_READ_AT_ONCE: Final = 20
"""Messages of a receiver that are in memory."""

_FRESH: Final = 1.0
"""Seconds for which what was read of a webhook holds: it may be disabled or deleted meanwhile."""

_LONG_AT_ONCE: Final = 24
_LONG_TO_FAILING: Final = 8
"""Long messages, of up to some MiB, that are in memory: those that hang hold up no others."""

_KEY_RETRY: Final = 60.0
"""Seconds until a message is tried again whose secret no key opens: an operator's mistake."""

_EVENTS: Final = {
    Verdict.TAKEN: "webhook.delivered",
    Verdict.FAILED: "webhook.failed",
    Verdict.GONE: "webhook.gone",
}
_CUT_SHORT: Final = Outcome(Verdict.FAILED, "the call was cut short")

Lane = list[Delivery]
"""Messages to one receiver, in order."""

log = get_logger()


@dataclass(kw_only=True, eq=False)
class Courier:
    """The courier of messages; `retry_delays` in seconds, one for each retry."""

    database: Database
    outbox: Outbox[Delivery]
    receivers: Receivers
    standings: Standings
    box: SecretBox
    signal: WorkSignal
    retry_delays: Sequence[float]
    _letters: Batcher[Delivery, Letter | None] = field(init=False)
    _done: Batcher[tuple[Delivery, int], None] = field(init=False)
    _long: dict[bool, asyncio.Semaphore] = field(init=False)
    _failed: set[int] = field(init=False, default_factory=set)
    """Receivers that have failed in their lane, which letters read before do not say."""

    def __post_init__(self) -> None:
        self._letters = Batcher(partial(read_letters, self.database))
        self._done = Batcher(self._settle_done)
        rooms = {False: _LONG_AT_ONCE, True: _LONG_TO_FAILING}
        self._long = {failing: asyncio.Semaphore(size) for failing, size in rooms.items()}

    def slots(self, under_way: int) -> int:
        return AT_ONCE - under_way

    async def take(self, limit: int) -> list[Lane]:
        """Claim due messages, grouped by their receivers."""
        limit = min(limit, _CLAIM)
        lanes: dict[int, Lane] = {}
        claimed = await self.outbox.claim(limit)
        for delivery in claimed:
            lanes.setdefault(delivery.webhook_id, []).append(delivery)
        if len(claimed) == limit:  # perhaps all of one receiver, while others wait
            self.signal.wake()
        return list(lanes.values())

    async def give_back(self, lane: Lane) -> None:
        await persist(lambda: self.outbox.release(lane))

    async def deliver(self, lane: Lane) -> None:
        """Send one after the other; what a slow or failing receiver leaves is given back."""
        waiting, until = deque(lane), time.monotonic() + DEADLINE
        try:
            while waiting and await self._deliver_first(waiting, until):
                pass
        finally:
            self._failed.discard(lane[0].webhook_id)
            if waiting:
                await self.give_back(list(waiting))
                self.signal.wake()

    async def _deliver_first(self, waiting: deque[Delivery], until: float) -> bool:
        """Send the first few of a lane; returns whether the receiver may be given more."""
        first = list(islice(waiting, _READ_AT_ONCE))
        read = time.monotonic()
        letters = await asyncio.gather(*map(self._letters, first))
        for delivery, letter in zip(first, letters, strict=True):
            if time.monotonic() >= until or (letter is not None and letter.must_wait):
                return False
            waiting.popleft()
            if letter is not None and not await self._handle(delivery, letter, until):
                return False
            if time.monotonic() >= read + _FRESH:
                break
        return True

    async def _handle(self, delivery: Delivery, letter: Letter, until: float) -> bool:
        """Send one message and settle it; returns whether the receiver may be given the next."""
        if letter.is_disabled:
            await persist(lambda: self.outbox.drop([delivery], "the webhook is disabled"))
            return True
        try:
            secrets = [self.box.open(letter.secret), *self._open_previous(letter)]
        except UnknownKey as error:
            await self._postpone(delivery, str(error))
            return False
        async with AsyncExitStack() as stack:
            try:
                body = await stack.enter_async_context(self._body(delivery, letter, until))
            except TimeoutError:
                await self.give_back([delivery])
                return False
            except BaseException:
                await self.give_back([delivery])
                raise
            return body is None or await self._send(delivery, letter, body, secrets)

    def _open_previous(self, letter: Letter) -> Iterator[str]:
        """A replaced secret that no key opens, which may be why it was replaced, is left out."""
        for sealed in (letter.previous_secret or "").split():
            with contextlib.suppress(UnknownKey):
                yield self.box.open(sealed)

    @asynccontextmanager
    async def _body(
        self, delivery: Delivery, letter: Letter, until: float
    ) -> AsyncIterator[bytes | None]:
        """The body of a message, for which there is room until the exit; None: it was deleted.

        Raises `TimeoutError` if there is none in time.
        """
        if letter.body is not None:
            yield letter.body.encode()
            return
        room = self._long[letter.is_failing]
        async with asyncio.timeout(until - time.monotonic()):
            await room.acquire()
        try:
            body = await read_body(self.database, delivery)
            yield None if body is None else body.encode()
        finally:
            room.release()

    async def _postpone(self, delivery: Delivery, reason: str) -> None:
        """Not tried for an operator's mistake, which costs the message none of its attempts."""
        log.error("webhook.not_signed", webhook_id=delivery.webhook_id, reason=reason)
        metrics.DELIVERIES.labels("not_signed").inc()
        uncounted = webhook_deliveries.c.attempts_before + 1
        await persist(
            lambda: self.outbox.retry([delivery], _KEY_RETRY, reason, attempts_before=uncounted)
        )

    async def _send(
        self, delivery: Delivery, letter: Letter, body: bytes, secrets: Sequence[str]
    ) -> bool:
        started = time.monotonic()
        outcome = _CUT_SHORT
        try:
            headers = sign(secrets, delivery.message, int(time.time()), body)
            outcome = await self.receivers.post(letter.url, headers, body)
        finally:
            # also when a cancellation cut the call short, which the settlement outlives
            _record(delivery, outcome, time.monotonic() - started)
            goes_on = await self._settle(delivery, letter, outcome)
        return goes_on

    async def _settle(self, delivery: Delivery, letter: Letter, outcome: Outcome) -> bool:
        if outcome is _CUT_SHORT:
            await persist(lambda: self.outbox.retry([delivery], 0.0, outcome.reason))
            return False
        webhook_id, status = delivery.webhook_id, outcome.status
        match outcome.verdict:
            case Verdict.TAKEN:
                # first, or a kill in between would leave a receiver to be given up that works
                if letter.is_failing or webhook_id in self._failed:
                    await persist(partial(self.standings.recovered, webhook_id))
                    self._failed.discard(webhook_id)
                await self._done((delivery, status or 0))
                return True
            case Verdict.GONE:
                await persist(
                    lambda: self.outbox.fail([delivery], outcome.reason, last_status=status)
                )
                await persist(partial(self.standings.gone, webhook_id))
                return False
            case Verdict.FAILED:
                await self._settle_failed(delivery, outcome)
                return await self._note_failure(delivery, outcome)

    async def _settle_failed(self, delivery: Delivery, outcome: Outcome) -> None:
        reason, status = outcome.reason, outcome.status
        if delivery.attempt <= len(self.retry_delays):
            delay = self.retry_delays[delivery.attempt - 1]
            await persist(lambda: self.outbox.retry([delivery], delay, reason, last_status=status))
            return
        await persist(lambda: self.outbox.fail([delivery], reason, last_status=status))
        metrics.DELIVERIES.labels("given_up").inc()
        log.warning("webhook.given_up", webhook_id=delivery.webhook_id, message=delivery.message)

    async def _note_failure(self, delivery: Delivery, outcome: Outcome) -> bool:
        webhook_id, is_new = delivery.webhook_id, delivery.attempt == 1
        self._failed.add(webhook_id)
        may_go_on = await persist(lambda: self.standings.failed(webhook_id, is_new=is_new))
        return may_go_on and outcome.status is not None

    async def _settle_done(self, taken: Sequence[tuple[Delivery, int]]) -> list[Exception | None]:
        by_status: dict[int, list[Delivery]] = {}
        for delivery, status in taken:
            by_status.setdefault(status, []).append(delivery)
        for status, deliveries in by_status.items():
            await persist(partial(self.outbox.done, deliveries, last_status=status))
        return [None] * len(taken)


def _record(delivery: Delivery, outcome: Outcome, seconds: float) -> None:
    metrics.DELIVERIES.labels(outcome.verdict).inc()
    metrics.DELIVERY_SECONDS.observe(seconds)
    write = log.info if outcome.verdict is Verdict.TAKEN else log.warning
    write(
        _EVENTS[outcome.verdict],
        webhook_id=delivery.webhook_id,
        job_id=delivery.job_id,
        message=delivery.message,
        kind=delivery.event,
        correlation_id=delivery.correlation_id,
        attempt=delivery.attempts,
        status=outcome.status,
        duration=round(seconds, 4),
        reason=outcome.reason or None,
    )
