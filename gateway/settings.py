"""The gateway's settings (README.md lists every variable)."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import combinations
from typing import Final
from urllib.parse import urlsplit

from common.config.environment import Reader, without_credentials
from common.config.settings import (
    DEFAULT_APPLICATIONS,
    AdminSettings,
    DatabaseSettings,
    LogSettings,
    StorageSettings,
    read_admin,
    read_database,
    read_idempotency_retention,
    read_logs,
    read_notification_keys,
    read_silence_margin,
    read_stale_after,
    read_storage,
)
from common.webhooks.settings import WebhookSettings, read_webhooks

_TOUCH_EVERY: Final = 30.0
_POOL: Final = re.compile(r"([\w-]+)_[0-9a-zA-Z]+", re.ASCII)
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})")


@dataclass(frozen=True, kw_only=True)
class CognitoSettings:
    """The user pool whose ID tokens are accepted."""

    region: str
    user_pool_id: str
    client_id: str
    jwks_url: str
    client_secret: str = field(default="", repr=False)

    @property
    def issuer(self) -> str:
        return f"https://cognito-idp.{self.region}.amazonaws.com/{self.user_pool_id}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for; 0 means no limit."""

    body_bytes: int = 4 * 1024**2
    upload_bytes: int = 0
    zip_files: int = 200_000
    zip_bytes: int = 0
    unpack_files: int = 50_000
    """Members of an archive, and directories that only their paths name."""
    unpack_bytes: int = 100 * 1024**3
    job_files: int = 10_000
    unfinished_jobs: int = 0
    """Jobs of a user that have not ended."""
    free_bytes: int = 0
    concurrent_requests: int = 64
    transfers: int = 128
    zips: int = 8
    user_bytes: int = 0
    rate: tuple[int, int] | None = None
    """Requests of a user, and the seconds in which they count."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """What one address that is no trusted proxy may hold; 0 means no limit."""

    per_address: int = 256
    heads_per_address: int = 64


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The gateway's settings. Times in seconds.

    `touch_every` is the time between two updates of a job's `last_seen_at` while its status stays,
    `idempotency_retention` how long answers are kept under their keys.
    """

    host: str
    port: int
    internal_port: int
    admin: AdminSettings
    logs: LogSettings
    database: DatabaseSettings
    storage: StorageSettings
    cognito: CognitoSettings
    internal_api_key: str = field(repr=False)
    account_endpoints: bool
    email_unverified: bool
    """Whether mails go to addresses that the user pool has not verified, too."""
    notification_keys: tuple[str, ...] = field(repr=False)
    """What the links in mails are signed with, at least one."""
    mail_event_token: str = field(repr=False)
    """What Mailjet's events have to name; empty: they are not taken."""
    applications: str
    frontend_origin: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    webhooks: WebhookSettings
    limits: Limits
    connections: ConnectionLimits
    client_timeout: float
    upload_retention: float
    """How long a resumable upload is kept without a byte, or known once it is finished."""
    touch_every: float
    idempotency_retention: float
    drain_delay: float
    shutdown_grace: float

    @property
    def summary(self) -> dict[str, str]:
        """What is in use, without secrets."""
        return {
            "database": self.database.address,
            "storage": self.storage.place,
            "applications": self.applications,
            "keys": without_credentials(self.cognito.jwks_url),
            "accounts": "on" if self.account_endpoints else "off",
            "front_end": self.frontend_origin or "none",
        }


def load(reader: Reader) -> Settings:
    admin = read_admin(reader, 9000)
    storage = read_storage(reader)
    port, internal_port = reader.port("PORT", 8000), reader.port("INTERNAL_PORT", 0)
    _check_ports(reader, PORT=port, ADMIN_PORT=admin.port, INTERNAL_PORT=internal_port)
    return Settings(
        host=reader.text("HOST", "0.0.0.0"),  # noqa: S104 - the contract's default
        port=port,
        internal_port=internal_port,
        admin=admin,
        database=read_database(reader),
        storage=storage,
        cognito=_read_cognito(reader),
        internal_api_key=reader.secret("INTERNAL_API_KEY_SECRET", required=True),
        account_endpoints=_read_account_endpoints(reader),
        email_unverified=reader.flag("EMAIL_UNVERIFIED", default=True) is not False,
        notification_keys=read_notification_keys(reader),
        mail_event_token=reader.secret("EMAIL_SENDER_EVENT_TOKEN"),
        applications=reader.text("APPLICATION_CONFIG_FILE", DEFAULT_APPLICATIONS),
        frontend_origin=_read_origin(reader),
        trusted_proxies=_read_networks(reader),
        webhooks=read_webhooks(reader),
        limits=Limits(
            body_bytes=reader.whole("MAX_BODY_BYTES", 4 * 1024**2, least=1024),
            upload_bytes=reader.whole("MAX_UPLOAD_BYTES", 0),
            zip_files=reader.whole("MAX_ZIP_FILES", 200_000),
            zip_bytes=reader.whole("MAX_ZIP_BYTES", 0),
            unpack_files=reader.whole("MAX_UNPACK_FILES", 50_000),
            unpack_bytes=reader.whole("MAX_UNPACK_BYTES", 100 * 1024**3),
            job_files=reader.whole("MAX_JOB_FILES", 10_000),
            unfinished_jobs=reader.whole("MAX_UNFINISHED_JOBS", 0),
            free_bytes=storage.min_free_bytes,
            user_bytes=reader.whole("MAX_USER_BYTES", 0),
            concurrent_requests=reader.whole("MAX_CONCURRENT_REQUESTS", 64),
            transfers=reader.whole("MAX_TRANSFERS", 128, least=2),
            zips=reader.whole("MAX_ZIPS", 8, least=2),
            rate=_read_rate(reader),
        ),
        connections=ConnectionLimits(
            per_address=reader.whole("MAX_CONNECTIONS_PER_ADDRESS", 256),
            heads_per_address=reader.whole("MAX_HEADS_PER_ADDRESS", 64),
        ),
        client_timeout=reader.seconds("CLIENT_TIMEOUT", 60.0),
        upload_retention=reader.seconds("UPLOAD_RETENTION", 86_400.0, least=1.0),
        touch_every=_read_touch_every(reader),
        idempotency_retention=read_idempotency_retention(reader),
        drain_delay=reader.seconds("DRAIN_DELAY", 0.0),
        shutdown_grace=reader.seconds("SHUTDOWN_GRACE", 60.0),
        logs=read_logs(reader),
    )


def _check_ports(reader: Reader, **ports: int) -> None:
    """Each port has one purpose; 0 is none, or one that the system chooses."""
    for (name, port), (other, same) in combinations(ports.items(), 2):
        if port and port == same:
            reader.fault(f"{name} and {other} must differ, both are {port}")


def _read_cognito(reader: Reader) -> CognitoSettings:
    region = reader.text("COGNITO_REGION", "eu-central-1")
    pool = reader.text("COGNITO_USER_POOL_ID", required=True)
    _check_pool(reader, pool, region)
    derived = f"https://cognito-idp.{region}.amazonaws.com/{pool}/.well-known/jwks.json"
    return CognitoSettings(
        region=region,
        user_pool_id=pool,
        client_id=reader.text("COGNITO_CLIENT_ID", required=True),
        client_secret=reader.secret("COGNITO_SECRET"),
        jwks_url=reader.http_url("COGNITO_JWKS_URL", derived),
    )


def _check_pool(reader: Reader, pool: str, region: str) -> None:
    """A pool's id begins with its region (API reference of Cognito, `UserPoolType`)."""
    found = _POOL.fullmatch(pool)
    if pool and found is None:
        reader.fault(
            "COGNITO_USER_POOL_ID must be a region and an id, such as eu-central-1_AbCdEfGhI,"
            f" not {pool[:60]!r}"
        )
    elif found is not None and _REGION.fullmatch(found[1]) and found[1] != region:
        reader.warn("settings.region_differs", variable="COGNITO_REGION", region=region, pool=pool)


def _read_touch_every(reader: Reader) -> float:
    """Well within the time after which a dispatcher with these settings counts a job as stalled."""
    limits = (read_stale_after(reader), read_silence_margin(reader))
    return min(_TOUCH_EVERY, *(limit / 4 for limit in limits))


def _read_account_endpoints(reader: Reader) -> bool:
    """`AUTH` if it is set, else the opposite of `PROD`; off if neither is."""
    production = reader.flag("PROD", default=None)
    switched = reader.flag("AUTH", default=None)
    if switched is not None:
        return switched
    return production is False


def _read_origin(reader: Reader) -> str:
    """The front end's origin (RFC 6454): scheme, host, and port unless it is the scheme's default.

    An empty variable switches CORS off.
    """
    if reader.is_blank("FRONTEND_URL"):
        return ""
    if re.search(r"[,;\s]", reader.text("FRONTEND_URL")):
        reader.fault("FRONTEND_URL must be one address, not a list")
        return ""
    url = reader.http_url("FRONTEND_URL", "http://localhost:8080")
    parts = urlsplit(url.lower())
    host = parts.netloc.removesuffix({"http": ":80", "https": ":443"}.get(parts.scheme, ""))
    return f"{parts.scheme}://{host}" if url else ""


def _read_networks(reader: Reader) -> tuple[IPv4Network | IPv6Network, ...]:
    text = reader.text("TRUSTED_PROXIES", "127.0.0.1,::1")
    networks = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(item, strict=False))
        except ValueError:
            reader.fault(f"TRUSTED_PROXIES holds {item!r}, which is no address or network")
    return tuple(networks)


def _read_rate(reader: Reader) -> tuple[int, int] | None:
    text = reader.text("RATE_LIMIT")
    if not text:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        reader.fault(f"RATE_LIMIT must be requests/seconds, such as 600/60, not {text[:40]!r}")
        return None
    return int(found[1]), int(found[2])
