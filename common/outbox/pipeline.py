"""One outbox table in one daemon: what any courier needs to send from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge
from sqlalchemy import ColumnElement, Table

from common.outbox.claims import Item
from common.outbox.laned import Item as Laned
from common.outbox.laned import LanedOutbox
from common.outbox.maintenance import OutboxMaintenance
from common.outbox.outbox import Outbox
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import Daemon

_LEASE_MARGIN: Final = 5.0
"""Seconds by which a lease outlasts the total deadline of a delivery, for writing its outcome."""

_SWEEP_EVERY: Final = 1.0
_BACKLOG_EVERY: Final = 5.0
_BATCH: Final = 200


@dataclass(frozen=True, kw_only=True)
class OutboxMetrics:
    """The metrics of one outbox; each service names its own."""

    backlog: Gauge
    oldest_due: Gauge
    oldest: Gauge
    leases_expired: Counter
    held: Gauge | None = None
    """None: no item of the outbox is ever held."""


class Pipeline:
    """Outbox, wake-ups and maintenance of one table; a daemon may have several."""

    def __init__(self, daemon: Daemon, table: Table, *, deadline: float) -> None:
        """`deadline`, in seconds, is the total one of a delivery."""
        self.signal = WorkSignal()
        self.maintenance = OutboxMaintenance(daemon.database, table)
        self._daemon = daemon
        self._table = table
        self._lease = deadline + _LEASE_MARGIN

    def outbox(
        self, item: type[Item], *, eligible: ColumnElement[bool] | None = None
    ) -> Outbox[Item]:
        """The outbox, claimed as `item`: without columns that its user does not need."""
        return Outbox(
            self._daemon.database, self._table, item, lease=self._lease, eligible=eligible
        )

    def laned_outbox(self, item: type[Laned], *, patience: float) -> LanedOutbox[Laned]:
        """The outbox of a table with lanes; one being sent is waited for so long."""
        return LanedOutbox(
            self._daemon.database, self._table, item, lease=self._lease, patience=patience
        )

    def maintain(
        self, sweep_doubts: Callable[[], Awaitable[int]], *, wait: float, metrics: OutboxMetrics
    ) -> None:
        """Schedule the maintenance.

        An item whose lease has run out is in doubt for `wait` seconds; `sweep_doubts` settles such
        items and returns how many it made due again.
        """

        async def sweep_leases() -> None:
            metrics.leases_expired.inc(await self.maintenance.doubt_expired(wait, _BATCH))
            self._daemon.tick()

        async def settle_doubts() -> None:
            if await sweep_doubts():
                self.signal.wake()

        async def measure() -> None:
            backlog = await self.maintenance.backlog()
            for state, count in backlog.counts.items():
                metrics.backlog.labels(state).set(count)
            metrics.oldest_due.set(backlog.oldest_due_age)
            metrics.oldest.set(backlog.oldest_age)
            if metrics.held is not None:
                metrics.held.set(backlog.counts["held"])

        every = self._daemon.ticks.every
        every(_SWEEP_EVERY, f"{self._table.name}.leases", sweep_leases)
        every(_SWEEP_EVERY, f"{self._table.name}.doubts", settle_doubts)
        every(_BACKLOG_EVERY, f"{self._table.name}.backlog", measure)
