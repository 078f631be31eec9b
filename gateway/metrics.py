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
STATUS_UPDATES: Final = Counter(
    "opencloud_status_updates",
    "Status updates by outcome: unchanged, applied, unknown, unavailable.",
    ["outcome"],
)
JOBS_SUBMITTED: Final = Counter("opencloud_jobs_submitted", "Jobs that got their 201.")

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

for _direction in ("in", "out"):
    TRANSFERS.labels(_direction)
    TRANSFERRED.labels(_direction)

for _outcome in ("unchanged", "applied", "unknown", "unavailable"):
    STATUS_UPDATES.labels(_outcome)
