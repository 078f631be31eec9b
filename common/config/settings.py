"""Settings that several services share, and their variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, Self

from sqlalchemy.engine import URL, make_url

from common.config.database_url import DatabaseURL, InvalidUrl, decoded, read_url
from common.config.environment import Reader, Warned

VERSION: Final = "1.0.0"
REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
DEFAULT_APPLICATIONS: Final = str(REPOSITORY / "application_config.yaml")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the database is. Times in seconds.

    `statement_cache=False` is for a transaction-pooling proxy such as PgBouncer, which supports
    neither prepared statements nor LISTEN. `server_settings` are sent to PostgreSQL at the start of
    each connection.
    """

    url: URL = field(repr=False)
    server_settings: Mapping[str, str] = field(default_factory=dict)
    pool_size: int = 10
    pool_timeout: float = 3.0
    connect_timeout: float = 5.0
    command_timeout: float | None = 10.0
    startup_timeout: float = 60.0
    statement_cache: bool = True

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def place(self) -> str:
        """The server's host and port, or SQLite's file."""
        if self.is_sqlite:
            return self.url.database or "memory"
        if self.url.host:
            return f"{self.url.host}:{self.url.port or 5432}"
        hosts = self.url.query.get("host", "localhost")
        return hosts if isinstance(hosts, str) else ",".join(hosts)

    @property
    def address(self) -> str:
        """The URL without user, secret and options."""
        if self.is_sqlite:
            return f"sqlite:///{self.url.database or ''}"
        return f"postgresql://{self.place}/{self.url.database or ''}"

    @property
    def decoded(self) -> Self | None:
        """The same with the secret percent-decoded; None if it is not percent-encoded."""
        secret = decoded(str(self.url.password or ""))
        return None if secret is None else replace(self, url=self.url.set(password=secret))


def read_database(reader: Reader) -> DatabaseSettings:
    """`DATABASE_URL` with `DATABASE_SECRET` filled in (percent-encoded), and the pool's size."""
    text = reader.text("DATABASE_URL", "sqlite:///./sql_app.db")
    secret = reader.secret("DATABASE_SECRET")
    found = DatabaseURL(url=make_url("sqlite://"), server_settings={})
    try:
        found = read_url(text, secret)
    except InvalidUrl as error:
        reader.fault(f"DATABASE_URL {error}")
    if password := found.url.password:
        reader.keep_secret("DATABASE_SECRET" if secret else "DATABASE_URL", str(password))
        reader.secrets += filter(None, [decoded(str(password))])
    reader.secrets += found.secrets
    for option in found.ignored:
        reader.warn("settings.option_ignored", variable="DATABASE_URL", option=option)
    return DatabaseSettings(
        url=found.url,
        server_settings=found.server_settings,
        connect_timeout=found.connect_timeout or 5.0,
        pool_size=reader.whole("DATABASE_POOL_SIZE", 10, least=1),
        pool_timeout=reader.seconds("DATABASE_POOL_TIMEOUT", 3.0, least=0.1),
        startup_timeout=reader.seconds("DATABASE_STARTUP_TIMEOUT", 60.0),
        statement_cache=bool(reader.flag("DATABASE_STATEMENT_CACHE", default=True)),
    )


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Where users' files are; `root` is spelled exactly as in the peer's settings.

    `min_free_bytes`: space that uploads leave on local storage.
    """

    kind: Literal["local", "s3"]
    root: str
    bucket: str = ""
    region: str = "eu-central-1"
    public_endpoint: str = ""
    fsync: bool = False
    min_free_bytes: int = 0

    @property
    def place(self) -> str:
        """Where the trees are: a folder, or a bucket's address with the key prefix."""
        return f"s3://{self.bucket}/{self.root}" if self.kind == "s3" else self.root

    @property
    def named(self) -> str:
        """The variable to look at when the storage cannot work, with its value."""
        if self.kind == "s3":
            return f"S3_BUCKET {self.bucket}"
        return f"USER_DATA_ROOT_PATH {self.root}"


def read_storage(reader: Reader) -> StorageSettings:
    kind = reader.choice("FILESYSTEM", "local", ("local", "s3"))
    return StorageSettings(
        kind="s3" if kind == "s3" else "local",
        root=reader.text("USER_DATA_ROOT_PATH", "user_data"),
        bucket=reader.text("S3_BUCKET", required=kind == "s3"),
        region=reader.text("S3_REGION", "eu-central-1"),
        public_endpoint=reader.http_url("S3_PUBLIC_ENDPOINT_URL"),
        fsync=bool(reader.flag("STORAGE_FSYNC", default=False)),
        min_free_bytes=reader.whole("MIN_FREE_BYTES", 0),
    )


@dataclass(frozen=True, kw_only=True)
class AdminSettings:
    """Where a process serves its probes and metrics; `revision`: the code's, for the latter."""

    host: str
    port: int
    revision: str = "unknown"


def read_admin(reader: Reader, default_port: int) -> AdminSettings:
    return AdminSettings(
        host=reader.text("ADMIN_HOST", "127.0.0.1"),
        port=reader.port("ADMIN_PORT", default_port),
        revision=reader.text("REVISION", "unknown"),
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Level and form of logs (`auto`: pretty on a terminal, else JSON); `secrets` are redacted."""

    level: str = "INFO"
    form: str = "auto"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    short_secrets: tuple[str, ...] = ()
    """Names of variables whose values may be guessed, which the start logs."""
    warnings: tuple[Warned, ...] = ()
    """What the start logs about settings that are accepted."""


def read_logs(reader: Reader) -> LogSettings:
    """To be called last, so that all secrets are known, which are kept out of the logs."""
    return LogSettings(
        level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        form=reader.choice("LOG_FORMAT", "auto", ("auto", "json", "pretty")),
        secrets=tuple(dict.fromkeys(reader.secrets)),
        short_secrets=tuple(dict.fromkeys(reader.short_secrets)),
        warnings=tuple(dict.fromkeys(reader.warnings)),
    )


def read_notification_keys(reader: Reader, *, needed: bool = True) -> tuple[str, ...]:
    """The secrets of `NOTIFICATION_KEYS`, separated by commas: the first one signs the links in
    mails, all are accepted. Else, if one is `needed`, the internal key; empty without either."""
    text = reader.secret("NOTIFICATION_KEYS")
    keys = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not keys and needed:
        keys = tuple(filter(None, [reader.secret("INTERNAL_API_KEY_SECRET")]))
    elif len(keys) > 1:
        for key in keys:
            reader.keep_secret("NOTIFICATION_KEYS", key)
    return keys


def read_stale_after(reader: Reader) -> float:
    """Seconds without an update after which the peer is asked for a job's status, if it can be."""
    return reader.seconds("STALE_AFTER", 120.0)


def read_silence_margin(reader: Reader) -> float:
    """Seconds without an update, beyond its application's time-out, after which a job stalled."""
    return reader.seconds("SILENCE_MARGIN", 3_600.0)


def read_idempotency_retention(reader: Reader) -> float:
    """Seconds for which the answer to a request with an idempotency key is kept."""
    return reader.seconds("IDEMPOTENCY_RETENTION", 86_400.0)
