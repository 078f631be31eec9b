"""Where no e-mail sender is configured: mails fail, so that none is sent weeks later.

That goes for what an earlier sender has left as well, held or in doubt: nobody can look it up.
"""

from collections.abc import Sequence
from typing import Final

from common.outbox.outbox import Claimed, Outbox
from common.runtime.claim_loop import persist
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.mailjet import BATCH

_REASON: Final = "no e-mail sender is configured"

log = get_logger()


class Discarder:
    """Takes the place of both who sends mails and who looks them up."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def take(self, _: int) -> list[list[Claimed]]:
        items = await self._outbox.claim(BATCH) or await self._outbox.claim_held(BATCH)
        return [items] if items else []

    async def give_back(self, batch: Sequence[Claimed]) -> None:
        await persist(lambda: self._outbox.release(batch))

    async def deliver(self, batch: Sequence[Claimed]) -> None:
        await persist(lambda: self._outbox.fail(batch, _REASON))
        _record(batch)

    async def sweep(self) -> int:
        """One tick; no mail in doubt will be sent again."""
        items = await self._outbox.claim_doubtful(BATCH)
        for item in items:
            await self._outbox.give_up(item, _REASON)
        _record(items)
        return 0


def _record(items: Sequence[Claimed]) -> None:
    metrics.MAILS.labels("discarded").inc(len(items))
    for item in items:
        log.warning("mail.discarded", job_id=item.job_id, kind=item.row["kind"])
