"""The notifier's periodic work: what is done how often.

Mails are never pruned: their rows are what makes a mail per job and status unique. They go with
their job.
"""

from dataclasses import dataclass
from typing import Final

from common.outbox.breaker import Gate, State
from common.outbox.maintenance import Upkeep
from common.runtime.claim_loop import ClaimLoop
from common.runtime.periodic import Ticks
from common.telemetry.health import Health
from notifier import metrics
from notifier.deliver import Batch
from notifier.discard import Discarder
from notifier.lookup import Lookup

_SWEEP_EVERY: Final = 1.0
_BACKLOG_EVERY: Final = 5.0
_BATCH: Final = 200
_STUCK_AFTER: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Housekeeping:
    """What the ticks work with; no gate where no e-mail sender is configured."""

    upkeep: Upkeep
    gate: Gate | None
    doubts: Lookup | Discarder
    lookup_wait: float
    claim_loop: ClaimLoop[Batch]
    health: Health

    async def sweep_leases(self) -> None:
        """Leases that ran out; that the database took it is the sign of a good tick."""
        metrics.LEASES_EXPIRED.inc(await self.upkeep.doubt_expired(self.lookup_wait, _BATCH))
        if self.claim_loop.turn_age < _STUCK_AFTER:
            self.health.tick()

    async def sweep_doubts(self) -> None:
        """Doubts whose wait is over, while Mailjet can be asked, or need not be."""
        if self.gate is not None and not self.gate.is_reachable:
            return
        if await self.doubts.sweep():
            self.claim_loop.wake()

    async def measure(self) -> None:
        """Gauges; those that the database is not asked for first, since it may be away."""
        # without a gate nothing is in the way
        present = State.CLOSED if self.gate is None else self.gate.state
        for gate_state in State:
            metrics.GATE.labels(gate_state).set(gate_state is present)
        backlog = await self.upkeep.backlog()
        for state in ("due", "waiting", "sending", "in_doubt", "held"):
            metrics.BACKLOG.labels(state).set(getattr(backlog, state))
        metrics.OLDEST_DUE.set(backlog.oldest_due_age)
        metrics.OLDEST.set(backlog.oldest_age)
        metrics.HELD.set(backlog.held)


def add_ticks(ticks: Ticks, house: Housekeeping) -> None:
    """Schedule everything."""
    ticks.every(_SWEEP_EVERY, "leases", house.sweep_leases)
    ticks.every(_SWEEP_EVERY, "doubts", house.sweep_doubts)
    ticks.every(_BACKLOG_EVERY, "backlog", house.measure)
