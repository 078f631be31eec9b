"""The notifier's settings. All times are in seconds."""

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

_ADDRESS: Final = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")


@dataclass(frozen=True, kw_only=True)
class MailjetSettings:
    """Mailjet's address and keys, and the sender's address."""

    url: str
    sender: str
    api_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`mailjet` is None if no e-mail sender is configured.

    After a lost answer a mail is looked up at Mailjet once `lookup_wait` has passed.
    """

    database: DatabaseSettings
    admin: AdminSettings
    logs: LogSettings
    mailjet: MailjetSettings | None
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
