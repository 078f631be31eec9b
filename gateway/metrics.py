"""The gateway's metrics; dashboards and alert rules in `deploy/` refer to them by name."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Histogram(
    "opencloud_request_seconds",
    "Requests by method, route and status: count and duration up to the answer's end.",
    ["method", "route", "status"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
IN_FLIGHT: Final = Gauge("opencloud_requests_in_flight", "Requests that are being answered.")
TRANSFERS: Final = Gauge(
    "opencloud_transfers_in_flight", "Uploads, downloads and zips under way.", ["direction"]
)
TRANSFERRED: Final = Counter(
    "opencloud_transferred_bytes", "Bytes of files taken in or sent out.", ["direction"]
)
UPLOADS_ENDED: Final = Counter(
    "opencloud_uploads_ended",
    "Resumable uploads by how they ended here: finished, terminated, mismatched (another SHA-256 "
    "than announced), lost (staged bytes were gone), failed (during their creation).",
    ["outcome"],
)
STATUS_UPDATES: Final = Counter(
    "opencloud_status_updates",
    "Status updates by outcome: unchanged, applied, unknown, unavailable.",
    ["outcome"],
)
STREAMS: Final = Gauge("opencloud_event_streams", "Open streams of events.")
EVENT_LATENCY: Final = Histogram(
    "opencloud_event_seconds",
    "Seconds from the writing of an event to its delivery to the streams of its user.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10),
)
FEED_AGE: Final = Gauge(
    "opencloud_event_feed_age_seconds",
    "Seconds since events were last read for those who follow them; 0 while nobody does.",
)
CANCELLATIONS: Final = Counter(
    "opencloud_cancellations",
    "Jobs that users asked to cancel, by outcome: cancelled, ended, not_found.",
    ["outcome"],
)
JOBS_SUBMITTED: Final = Counter("opencloud_jobs_submitted", "Jobs that got their 201.")
BATCHES_SUBMITTED: Final = Counter("opencloud_batches_submitted", "Batches that got their 201.")
IDEMPOTENT_REPLAYS: Final = Counter(
    "opencloud_idempotent_replays", "Requests answered as they were before, by their key."
)

SHARES: Final = Gauge(
    "opencloud_share_slots",
    "Expensive work by kind: in_use, lent (the client stands still), waiting for its turn.",
    ["kind", "state"],
)
SHARES_REFUSED: Final = Counter(
    "opencloud_share_refused", "Expensive work that was refused: a share was used up.", ["kind"]
)
CONNECTIONS: Final = Gauge(
    "opencloud_connections",
    "Clients' connections: busy with a request, idle without one.",
    ["state"],
)
CONNECTIONS_CLOSED: Final = Counter(
    "opencloud_connections_closed",
    "Connections that gave way: file handles run short, or an address has too many connections or "
    "unfinished heads.",
    ["reason"],
)

CREDENTIALS_REFUSED: Final = Counter(
    "opencloud_credentials_refused", "Tokens, passwords and keys that were refused.", ["reason"]
)
CREDENTIAL_REASONS: Final = (
    *("missing", "malformed", "algorithm", "unknown_key", "signature"),
    *("expired", "audience", "issuer", "not_id_token", "claims"),
    *("api_key", "password", "throttled"),
)

for _reason in CREDENTIAL_REASONS:
    CREDENTIALS_REFUSED.labels(_reason)

for _reason in ("handles", "connections", "heads"):
    CONNECTIONS_CLOSED.labels(_reason)

for _direction in ("in", "out"):
    TRANSFERS.labels(_direction)
    TRANSFERRED.labels(_direction)

for _outcome in ("finished", "terminated", "mismatched", "lost", "failed"):
    UPLOADS_ENDED.labels(_outcome)

for _outcome in ("unchanged", "applied", "unknown", "unavailable"):
    STATUS_UPDATES.labels(_outcome)

for _outcome in ("cancelled", "ended", "not_found"):
    CANCELLATIONS.labels(_outcome)
