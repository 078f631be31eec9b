"""Without a configured e-mail sender mails fail, so that none is sent weeks later.

That includes mails that an earlier sender has left held or in doubt: nobody can look them up.
"""

from collections.abc import Sequence
from typing import Final

from common.outbox.doubts import Doubts
from common.outbox.outbox import Outbox
from common.runtime.claim_loop import persist
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.mailjet import BATCH
from notifier.messages import Mail

_REASON: Final = "no e-mail sender is configured"

log = get_logger()


class Discarder:
    """Takes the place of both the courier and the look-up."""

    def __init__(self, outbox: Outbox[Mail], doubts: Doubts[Mail]) -> None:
        self._outbox = outbox
        self._doubts = doubts

    def slots(self, under_way: int) -> int:
        return 1 - under_way

    async def take(self, _: int) -> list[list[Mail]]:
        mails = await self._outbox.claim(BATCH) or await self._outbox.claim_held(BATCH)
        return [mails] if mails else []

    async def give_back(self, batch: Sequence[Mail]) -> None:
        await persist(lambda: self._outbox.release(batch))

    async def deliver(self, batch: Sequence[Mail]) -> None:
        await persist(lambda: self._outbox.fail(batch, _REASON))
        _record(batch)

    async def sweep(self) -> int:
        """One tick; no mail in doubt will be sent again."""
        mails = await self._doubts.claim(BATCH)
        for mail in mails:
            await self._doubts.give_up(mail, _REASON)
        _record(mails)
        return 0


def _record(mails: Sequence[Mail]) -> None:
    metrics.MAILS.labels("discarded").inc(len(mails))
    for mail in mails:
        log.warning("mail.discarded", job_id=mail.job_id, kind=mail.kind)
