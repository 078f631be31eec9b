"""Settings of webhooks that the gateway and the notifier share."""

from dataclasses import dataclass, field

from common.config.environment import Reader


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """`keys` encrypt the secrets, the newest first; `allow_private`: receivers may have private
    addresses and speak plain HTTP."""

    keys: tuple[str, ...] = field(default=(), repr=False)
    allow_private: bool = False


def read_webhooks(reader: Reader) -> WebhookSettings:
    """`WEBHOOK_KEY` may list several keys, with commas. The internal key stands in for it, and
    opens what it sealed before there was one."""
    listed = reader.secret("WEBHOOK_KEY").split(",")
    keys = [key for part in listed if (key := part.strip())]
    reader.secrets += keys
    keys.append(reader.secret("INTERNAL_API_KEY_SECRET"))
    return WebhookSettings(
        keys=tuple(filter(None, keys)),
        allow_private=bool(reader.flag("WEBHOOK_ALLOW_PRIVATE", default=False)),
    )
