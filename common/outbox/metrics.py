"""Gauges of an outbox, and of the circuit breaker in front of its peer."""

from dataclasses import dataclass

from prometheus_client import Gauge

from common.outbox.breaker import LABELS
from common.outbox.maintenance import Backlog


@dataclass(frozen=True, kw_only=True)
class OutboxGauges:
    """The gauges of one outbox; each service names its own."""

    backlog: Gauge
    oldest_due: Gauge
    oldest: Gauge
    held: Gauge
    breaker: Gauge

    def set_backlog(self, backlog: Backlog) -> None:
        for state in ("due", "waiting", "sending", "in_doubt", "held"):
            self.backlog.labels(state).set(getattr(backlog, state))
        self.oldest_due.set(backlog.oldest_due_age)
        self.oldest.set(backlog.oldest_age)
        self.held.set(backlog.held)

    def set_breaker(self, present: str) -> None:
        """`present` is the breaker's label."""
        for label in LABELS:
            self.breaker.labels(label).set(label == present)
