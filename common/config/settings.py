"""Settings that several services share, and their variables."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from common.config.environment import Reader

VERSION: Final = "1.0.0"
REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent
DEFAULT_APPLICATIONS: Final = str(REPOSITORY / "application_config.yaml")

_TLS_OPTIONS: Final = ("sslmode", "sslrootcert", "sslcrl", "sslcert", "sslkey")
"""libpq's names in a database URL. asyncpg understands them in a DSN, not as arguments."""
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the database is. Times in seconds.

    `statement_cache=False` is for a transaction-pooling proxy such as PgBouncer, which supports
    neither prepared statements nor LISTEN.
    """

    url: URL = field(repr=False)
    pool_size: int = 10
    pool_timeout: float = 3.0
    connect_timeout: float = 5.0
    command_timeout: float | None = 10.0
    startup_timeout: float = 60.0
    statement_cache: bool = True

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"


def read_database(reader: Reader) -> DatabaseSettings:
    """`DATABASE_URL` with `DATABASE_SECRET` filled in (percent-encoded), and the pool's size."""
    text = reader.text("DATABASE_URL", "sqlite:///./sql_app.db")
    secret = reader.secret("DATABASE_SECRET")
    url = make_url("sqlite://")
    try:
        url = _driver_url(text, secret)
    except (ArgumentError, ValueError):
        reader.fault("DATABASE_URL is not a database URL (sqlite:///… or postgresql://…)")
    except OSError:
        reader.fault("DATABASE_URL names an sslrootcert that is no readable file of certificates")
    if url.password:
        reader.keep_secret("DATABASE_SECRET" if secret else "DATABASE_URL", str(url.password))
    return DatabaseSettings(
        url=url,
        pool_size=reader.whole("DATABASE_POOL_SIZE", 10, least=1),
        pool_timeout=reader.seconds("DATABASE_POOL_TIMEOUT", 3.0, least=0.1),
        startup_timeout=reader.seconds("DATABASE_STARTUP_TIMEOUT", 60.0),
        statement_cache=bool(reader.flag("DATABASE_STATEMENT_CACHE", default=True)),
    )


def _driver_url(text: str, secret: str) -> URL:
    """The URL with the asynchronous driver's name.

    Raises `ValueError` for another database, `OSError` for a file of certificates that is none.
    """
    placeholder = "opencloud-secret"
    url = make_url(text.replace("{}", placeholder))
    driver = _DRIVERS.get(url.drivername.partition("+")[0])
    if driver is None:
        raise ValueError(url.drivername)
    url = url.set(
        drivername=driver,
        # filled in after parsing, since the URL object percent-encodes what it renders
        username=(url.username or "").replace(placeholder, secret) or None,
        password=(url.password or "").replace(placeholder, secret) or None,
    )
    if tls := {name: url.query[name] for name in _TLS_OPTIONS if name in url.query}:
        dsn = f"postgresql://?{urlencode(tls, doseq=True)}"
        url = url.difference_update_query(_TLS_OPTIONS).update_query_dict({"dsn": dsn})
    if "sslrootcert" in tls:
        check_certificates(tls["sslrootcert"])
    return url


def check_certificates(path: str | tuple[str, ...]) -> None:
    """Raise `OSError` unless the file has certificates of authorities.

    A connection would count the missing file as an outage, and wait for its end.
    """
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(path))


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Where users' files are; `root` is spelled exactly as in the peer's settings."""

    kind: Literal["local", "s3"]
    root: str
    bucket: str = ""
    region: str = "eu-central-1"
    public_endpoint: str = ""
    fsync: bool = False


def read_storage(reader: Reader) -> StorageSettings:
    kind = reader.choice("FILESYSTEM", "local", ("local", "s3"))
    return StorageSettings(
        kind="s3" if kind == "s3" else "local",
        root=reader.text("USER_DATA_ROOT_PATH", "user_data"),
        bucket=reader.text("S3_BUCKET", required=kind == "s3"),
        region=reader.text("S3_REGION", "eu-central-1"),
        public_endpoint=reader.http_url("S3_PUBLIC_ENDPOINT_URL"),
        fsync=bool(reader.flag("STORAGE_FSYNC", default=False)),
    )


@dataclass(frozen=True, kw_only=True)
class AdminSettings:
    """Where a process serves its probes and metrics."""

    host: str
    port: int


def read_admin(reader: Reader, default_port: int) -> AdminSettings:
    return AdminSettings(
        host=reader.text("ADMIN_HOST", "127.0.0.1"),
        port=reader.port("ADMIN_PORT", default_port),
    )


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """Level and form of logs (`auto`: pretty on a terminal, else JSON); `secrets` are redacted."""

    level: str = "INFO"
    form: str = "auto"
    secrets: tuple[str, ...] = field(default=(), repr=False)
    short_secrets: tuple[str, ...] = ()
    """Names of variables whose values may be guessed, which the start logs."""


def read_logs(reader: Reader) -> LogSettings:
    """To be called last, so that all secrets are known, which are kept out of the logs."""
    return LogSettings(
        level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        form=reader.choice("LOG_FORMAT", "auto", ("auto", "json", "pretty")),
        secrets=tuple(dict.fromkeys(reader.secrets)),
        short_secrets=tuple(dict.fromkeys(reader.short_secrets)),
    )


def read_stale_after(reader: Reader) -> float:
    """Seconds without an update after which the peer is asked for a job's status, if it can be."""
    return reader.seconds("STALE_AFTER", 120.0)


def read_silence_margin(reader: Reader) -> float:
    """Seconds without an update, beyond its application's time-out, after which a job stalled."""
    return reader.seconds("SILENCE_MARGIN", 3_600.0)


def read_idempotency_retention(reader: Reader) -> float:
    """Seconds for which the answer to a request with an idempotency key is kept."""
    return reader.seconds("IDEMPOTENCY_RETENTION", 86_400.0)
