"""Mails in doubt: look them up before anything is sent again.

One that is not found is sent a second time, once. After a second doubt it is only looked up, with
growing waits for about an hour, so that nobody ever gets more than one duplicate.
"""

from dataclasses import dataclass
from typing import Final

from common.outbox.outbox import Claimed, Outbox
from common.runtime.tasks import for_each
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.mailjet import Mailjet

_LONGEST_WAIT: Final = 3_600.0
_SHORTEST_WAIT: Final = 0.5
_ASK_AGAIN: Final = 10.0
_AT_ONCE: Final = 10

log = get_logger()


@dataclass(kw_only=True)
class Lookup:
    """Settles mails in doubt by asking Mailjet for them."""

    outbox: Outbox
    mailjet: Mailjet
    wait: float

    async def sweep(self) -> int:
        """One tick; returns how many mails will be sent again."""
        items = await self.outbox.claim_doubtful(_AT_ONCE)
        return sum(await for_each(items, self._resolve, at_once=_AT_ONCE))

    async def _resolve(self, item: Claimed) -> bool:
        found = await self.mailjet.find(item.row["custom_id"])
        doubts: int = item.row["doubts"]
        names = {"job_id": item.job_id, "custom_id": item.row["custom_id"], "doubts": doubts}
        if found is None:
            wait = min(max(self.wait, _SHORTEST_WAIT), _ASK_AGAIN)
            await self.outbox.still_in_doubt(item, wait, counts=False)
            return False
        if found:
            await self.outbox.found(item)
            log.info("mail.found", **names)
            return False
        if doubts <= 1:
            metrics.RESENDS.inc()
            log.warning("mail.not_found", **names)
            await self.outbox.lost(item)
            return True
        await self._wait_on(item, doubts)
        return False

    async def _wait_on(self, item: Claimed, doubts: int) -> None:
        wait = max(self.wait, _SHORTEST_WAIT) * 2.0 ** (min(doubts, 30) - 1)
        if wait <= _LONGEST_WAIT:
            await self.outbox.still_in_doubt(item, wait, counts=True)
            return
        await self.outbox.give_up(item, "sent twice, and not found at Mailjet")
        metrics.GIVEN_UP.inc()
        log.error("mail.given_up", job_id=item.job_id, custom_id=item.row["custom_id"])
