"""The notifier's settings. All times are in seconds."""

import math
import re
from dataclasses import dataclass, field
from typing import Final

from common.config.environment import Reader, without_credentials
from common.config.settings import (
    AdminSettings,
    DatabaseSettings,
    LogSettings,
    read_admin,
    read_database,
    read_logs,
    read_notification_keys,
)
from common.webhooks.settings import WebhookSettings, read_webhooks

_HOUR: Final = 3_600.0
RETRY_DELAYS: Final = (5.0, 300.0, 1_800.0, *(_HOUR * hours for hours in (2, 5, 10, 14, 20, 24)))
"""Seconds before each retry of a message to a webhook: the example of Standard Webhooks 1.0."""

_ADDRESS: Final = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")


@dataclass(frozen=True, kw_only=True)
class MailjetSettings:
    """Mailjet's address and keys, and the sender's address."""

    url: str
    sender: str
    api_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class WebhookDeliverySettings:
    """A message is tried again after each of `retry_delays`; a webhook that has taken nothing for
    `give_up_after` is disabled."""

    shared: WebhookSettings = field(default_factory=WebhookSettings)
    retry_delays: tuple[float, ...] = RETRY_DELAYS
    give_up_after: float = 432_000.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`mailjet` is None if no e-mail sender is configured.

    After a lost answer a mail is looked up at Mailjet once `lookup_wait` has passed.
    """

    database: DatabaseSettings
    admin: AdminSettings
    logs: LogSettings
    mailjet: MailjetSettings | None
    webhooks: WebhookDeliverySettings
    send_timeout: float
    lookup_wait: float
    shutdown_grace: float
    public_url: str = ""
    """The gateway's address for users; empty: no mail has a link that stops mails."""
    front_end: str = ""
    """The front end's address, for links; empty: there are none."""
    notification_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def summary(self) -> dict[str, str]:
        """What is in use, without secrets."""
        mail = "none"
        if self.mailjet is not None:
            mail = f"{without_credentials(self.mailjet.url)} as {self.mailjet.sender}"
        return {"database": self.database.address, "mail": mail}


def load(reader: Reader) -> Settings:
    """Read the environment; `reader.check()` reports its faults."""
    public_url = reader.http_url("PUBLIC_URL")
    keys = read_notification_keys(reader, needed=bool(public_url))
    if public_url and not keys:
        reader.fault(
            "NOTIFICATION_KEYS (or INTERNAL_API_KEY_SECRET) is missing, which signs the links that"
            " PUBLIC_URL puts into mails"
        )
    return Settings(
        database=read_database(reader),
        admin=read_admin(reader, 9002),
        mailjet=_mailjet(reader),
        webhooks=WebhookDeliverySettings(
            shared=read_webhooks(reader),
            retry_delays=_retry_delays(reader),
            give_up_after=reader.seconds("WEBHOOK_GIVE_UP_AFTER", 432_000.0),
        ),
        send_timeout=reader.seconds("EMAIL_TIMEOUT", 30.0, least=0.1),
        lookup_wait=reader.seconds("EMAIL_LOOKUP_WAIT", 30.0),
        shutdown_grace=reader.seconds("SHUTDOWN_GRACE", 40.0),
        public_url=public_url,
        front_end=reader.http_url("FRONTEND_URL"),
        notification_keys=keys,
        logs=read_logs(reader),
    )


def _mailjet(reader: Reader) -> MailjetSettings | None:
    service = reader.choice("EMAIL_SENDER_SERVICE", "", ("mailjet", ""))
    wanted = service == "mailjet"
    settings = MailjetSettings(
        url=reader.http_url("EMAIL_SENDER_API_URL", "https://api.mailjet.com"),
        sender=reader.text("EMAIL_SENDER_ADDRESS", required=wanted),
        api_key=reader.secret("EMAIL_SENDER_API_KEY", required=wanted),
        secret_key=reader.secret("EMAIL_SENDER_SECRET_KEY", required=wanted),
    )
    if wanted and settings.sender and not _ADDRESS.fullmatch(settings.sender):
        reader.fault(
            "EMAIL_SENDER_ADDRESS must be an address such as no-reply@example.org,"
            f" not {settings.sender[:60]!r}"
        )
    return settings if wanted else None


def _retry_delays(reader: Reader) -> tuple[float, ...]:
    """`WEBHOOK_RETRY_DELAYS`: seconds, with commas, at least one."""
    text = reader.text("WEBHOOK_RETRY_DELAYS")
    if not text:
        return RETRY_DELAYS
    try:
        delays = tuple(float(part) for part in text.split(","))
    except ValueError:
        delays = ()
    if not delays or not all(0.0 <= delay < math.inf for delay in delays):
        reader.fault(f"WEBHOOK_RETRY_DELAYS must be seconds, such as 5,300,1800, not {text[:60]!r}")
        return RETRY_DELAYS
    return delays
