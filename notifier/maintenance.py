"""The notifier's periodic work: what runs how often.

Mails are never pruned: their rows make a mail per job and status unique. They go with their job.
"""

from dataclasses import dataclass
from typing import Final

from common.outbox.breaker import BreakerState, CircuitBreaker
from common.outbox.maintenance import OutboxMaintenance
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import Daemon
from notifier import metrics
from notifier.discard import Discarder
from notifier.lookup import Lookup

_SWEEP_EVERY: Final = 1.0
_BACKLOG_EVERY: Final = 5.0
_BATCH: Final = 200


@dataclass(frozen=True, kw_only=True)
class MailMaintenance:
    """The ticks, and what they work with; no breaker if no e-mail sender is configured."""

    daemon: Daemon
    outbox: OutboxMaintenance
    breaker: CircuitBreaker | None
    doubts: Lookup | Discarder
    lookup_wait: float
    signal: WorkSignal

    async def sweep_leases(self) -> None:
        """Put mails with an expired lease in doubt."""
        metrics.LEASES_EXPIRED.inc(await self.outbox.doubt_expired(self.lookup_wait, _BATCH))
        self.daemon.tick()

    async def sweep_doubts(self) -> None:
        """Settle doubts whose wait is over, while Mailjet can be asked, or need not be."""
        if self.breaker is not None and not self.breaker.is_reachable:
            return
        if await self.doubts.sweep():
            self.signal.wake()

    async def measure(self) -> None:
        """Set the gauges; first those without the database, since it may be away."""
        present = BreakerState.CLOSED if self.breaker is None else self.breaker.label
        metrics.OUTBOX.set_breaker(present)
        metrics.OUTBOX.set_backlog(await self.outbox.backlog())

    def add_ticks(self) -> None:
        """Schedule everything."""
        every = self.daemon.ticks.every
        every(_SWEEP_EVERY, "leases", self.sweep_leases)
        every(_SWEEP_EVERY, "doubts", self.sweep_doubts)
        every(_BACKLOG_EVERY, "backlog", self.measure)
