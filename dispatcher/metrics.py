"""The dispatcher's metrics."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from common.outbox.pipeline import OutboxMetrics

HANDOVERS: Final = Counter("opencloud_handovers", "Hand-overs tried, by outcome", ["verdict"])
HANDOVER_SECONDS: Final = Histogram(
    "opencloud_handover_seconds",
    "Duration of a submission to the worker-facing API",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
RESENDS: Final = Counter(
    "opencloud_handover_resends",
    "Hand-overs in doubt that were sent again under another delivery number",
)
HELD: Final = Gauge(
    "opencloud_handover_held",
    "Alarm: hand-overs held because the worker-facing API refused our key or address",
)
BACKLOG: Final = Gauge("opencloud_handover_backlog", "Hand-overs not settled yet", ["state"])
OLDEST_DUE: Final = Gauge(
    "opencloud_handover_oldest_due_seconds", "How long the oldest due hand-over has been due"
)
OLDEST: Final = Gauge(
    "opencloud_handover_oldest_seconds", "Age of the oldest hand-over that is not settled"
)
BREAKER: Final = Gauge(
    "opencloud_handover_gate", "1 for the circuit breaker's present state", ["state"]
)
LIMIT: Final = Gauge("opencloud_handover_limit", "Submissions that may be under way at once")
USAGE_SECONDS: Final = Histogram(
    "opencloud_usage_measurement_seconds",
    "Measurements of users' files: count and duration",
    buckets=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800),
)
USAGE_OLDEST: Final = Gauge(
    "opencloud_usage_oldest_seconds", "Age of the oldest measurement of an active user's files"
)
USAGE_OLDEST_DUE: Final = Gauge(
    "opencloud_usage_oldest_due_seconds", "How long the oldest due measurement has been due"
)
UNFINISHED: Final = Gauge("opencloud_jobs", "Jobs that have not ended, by status", ["status"])
RECONCILED: Final = Counter("opencloud_reconciled", "Corrections by the sweeps, by kind", ["kind"])

for _verdict in ("taken", "refused", "not_taken", "in_doubt", "held"):
    HANDOVERS.labels(_verdict)

for _kind in (
    *("asked", "deletion_finished", "lease_expired", "silent", "unknown_at_peer"),
    *("pruned", "keys_pruned", "upload_expired", "upload_placed", "digest_forgotten"),
):
    RECONCILED.labels(_kind)

OUTBOX: Final = OutboxMetrics(
    backlog=BACKLOG,
    oldest_due=OLDEST_DUE,
    oldest=OLDEST,
    held=HELD,
    leases_expired=RECONCILED.labels("lease_expired"),
)
