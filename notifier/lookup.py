"""Mails in doubt: look them up before anything is sent again.

A mail that is not found is sent a second time, once. After a second doubt it is only looked up,
with growing waits for about an hour, so that a user gets at most one duplicate.
"""

from dataclasses import dataclass
from typing import Final

from common.outbox.breaker import CircuitBreaker
from common.outbox.outbox import Outbox
from common.runtime.tasks import for_each
from common.telemetry.logs import get_logger
from notifier import metrics
from notifier.mailjet import Mailjet
from notifier.messages import Mail

_LONGEST_WAIT: Final = 3_600.0
_SHORTEST_WAIT: Final = 0.5
_ASK_AGAIN: Final = 10.0
_AT_ONCE: Final = 10

log = get_logger()


@dataclass(kw_only=True)
class Lookup:
    """Settles mails in doubt by looking them up at Mailjet; `wait` is in seconds."""

    outbox: Outbox[Mail]
    mailjet: Mailjet
    breaker: CircuitBreaker
    wait: float

    async def sweep(self) -> int:
        """One tick, unless Mailjet is away; returns how many mails will be sent again."""
        if not self.breaker.is_reachable:
            return 0
        mails = await self.outbox.claim_doubtful(_AT_ONCE)
        return sum(await for_each(mails, self._resolve, at_once=_AT_ONCE))

    async def _resolve(self, mail: Mail) -> bool:
        found = await self.mailjet.find(mail.custom_id)
        names = {"job_id": mail.job_id, "custom_id": mail.custom_id, "doubts": mail.doubts}
        if found is None:
            wait = min(max(self.wait, _SHORTEST_WAIT), _ASK_AGAIN)
            await self.outbox.postpone([mail], wait)
        elif found:
            await self.outbox.done([mail])
            log.info("mail.found", **names)
        elif mail.doubts <= 1:
            metrics.RESENDS.inc()
            log.warning("mail.not_found", **names)
            await self.outbox.resend([mail])
            return True
        else:
            await self._wait_on(mail)
        return False

    async def _wait_on(self, mail: Mail) -> None:
        wait = max(self.wait, _SHORTEST_WAIT) * 2.0 ** (min(mail.doubts, 30) - 1)
        if wait <= _LONGEST_WAIT:
            await self.outbox.postpone([mail], wait, doubts=1)
            return
        await self.outbox.fail([mail], "sent twice, and not found at Mailjet")
        metrics.GIVEN_UP.inc()
        log.error("mail.given_up", job_id=mail.job_id, custom_id=mail.custom_id)
