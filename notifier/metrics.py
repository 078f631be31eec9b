"""The notifier's metrics."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from common.outbox.pipeline import OutboxMetrics

MAILS: Final = Counter(
    "opencloud_mails",
    "Mails tried, discarded without a sender, or dropped since nobody wants them, by verdict",
    ["verdict"],
)
REQUEST_SECONDS: Final = Histogram(
    "opencloud_mail_request_seconds", "Duration of a request that sends a batch"
)
RESENDS: Final = Counter(
    "opencloud_mail_resends", "Mails in doubt that were not found and sent a second time"
)
GIVEN_UP: Final = Counter(
    "opencloud_mails_given_up", "Mails in doubt twice that were never found afterwards"
)
HELD: Final = Gauge(
    "opencloud_mail_held", "Alarm: mails held because Mailjet refused our key or address"
)
BACKLOG: Final = Gauge("opencloud_mail_backlog", "Mails not settled yet", ["state"])
OLDEST_DUE: Final = Gauge(
    "opencloud_mail_oldest_due_seconds", "How long the oldest due mail has been due"
)
OLDEST: Final = Gauge("opencloud_mail_oldest_seconds", "Age of the oldest mail that is not settled")
LEASES_EXPIRED: Final = Counter(
    "opencloud_mail_leases_expired", "Mails whose notifier did not report back"
)
BREAKER: Final = Gauge(
    "opencloud_mail_gate", "1 for the circuit breaker's present state", ["state"]
)

_VERDICTS: Final = (
    "sent", "failed", "not_taken", "in_doubt", "held", "alone", "discarded", "dropped",
)  # fmt: skip
for _verdict in _VERDICTS:
    MAILS.labels(_verdict)

OUTBOX: Final = OutboxMetrics(
    backlog=BACKLOG,
    oldest_due=OLDEST_DUE,
    oldest=OLDEST,
    held=HELD,
    leases_expired=LEASES_EXPIRED,
)

# -- webhooks -------------------------------------------------------------------------------------

DELIVERIES: Final = Counter(
    "opencloud_webhook_deliveries", "Attempts to deliver to webhooks, by outcome", ["outcome"]
)
DELIVERY_SECONDS: Final = Histogram(
    "opencloud_webhook_request_seconds", "Duration of a call to a webhook's receiver"
)
WEBHOOKS_DISABLED: Final = Counter(
    "opencloud_webhooks_disabled", "Webhooks that were disabled, by reason", ["reason"]
)
WEBHOOKS: Final = Gauge("opencloud_webhooks", "Webhooks by state", ["state"])
OVERDUE: Final = Gauge(
    "opencloud_webhook_overdue_seconds",
    "How long the longest due message has waited for a notifier, its receiver being free",
)
WEBHOOK_STATES: Final = ("working", "failing", "disabled")

for _outcome in ("taken", "failed", "gone", "given_up", "not_signed"):
    DELIVERIES.labels(_outcome)
for _reason in ("failing", "gone"):
    WEBHOOKS_DISABLED.labels(_reason)

DELIVERY_BACKLOG: Final = Gauge(
    "opencloud_webhook_backlog", "Messages to webhooks not settled yet", ["state"]
)
DELIVERY_OLDEST_DUE: Final = Gauge(
    "opencloud_webhook_oldest_due_seconds",
    "How long the longest due message has been due, whatever its receiver does",
)
DELIVERY_OLDEST: Final = Gauge(
    "opencloud_webhook_oldest_seconds", "Age of the oldest message that is not settled"
)
DELIVERY_LEASES_EXPIRED: Final = Counter(
    "opencloud_webhook_leases_expired", "Messages whose notifier did not report back"
)

WEBHOOK_OUTBOX: Final = OutboxMetrics(
    backlog=DELIVERY_BACKLOG,
    oldest_due=DELIVERY_OLDEST_DUE,
    oldest=DELIVERY_OLDEST,
    leases_expired=DELIVERY_LEASES_EXPIRED,
)
