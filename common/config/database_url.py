"""`DATABASE_URL`: from the spelling that operators know to what the asynchronous drivers take.

The URL may have the options of libpq, which the service before this one passed to psycopg2. Those
that asyncpg has are translated; the rest of libpq's are ignored, and named.
"""

import inspect
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlencode

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}

_IN_A_DSN: Final = (
    *("sslmode", "sslrootcert", "sslcrl", "sslcert", "sslkey", "sslpassword", "sslnegotiation"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version"),
)
"""Options that asyncpg understands in a DSN, not as arguments."""

_SERVER_SETTINGS: Final = ("application_name", "options")
"""Options that are sent to the server when a connection starts."""

_IGNORED: Final = frozenset(
    {
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
        *("tcp_user_timeout", "client_encoding", "fallback_application_name", "hostaddr"),
        *("channel_binding", "gssencmode", "gssdelegation", "requirepeer", "require_auth"),
        *("requiressl", "sslcompression", "sslcertmode", "sslcrldir", "sslsni"),
        *("load_balance_hosts", "replication"),
    }
)
"""Options of libpq without a counterpart (https://www.postgresql.org/docs/current/libpq-connect.html,
section "Parameter Key Words")."""

_DRIVERS_OWN: Final = frozenset(
    {
        *inspect.signature(asyncpg.connect).parameters,
        *("async_fallback", "prepared_statement_cache_size"),  # SQLAlchemy's
    }
)
"""Options that are passed on as they are."""

_SECRETS: Final = ("password", "sslpassword")

_ENCODED: Final = re.compile(r"(?=.*%)(?:[\w.~!$'()*+,;=:@/?&-]|%[0-9A-Fa-f]{2})+", re.ASCII)


class InvalidUrl(Exception):
    """The URL cannot be used; the message is the rest of a sentence about it."""


@dataclass(frozen=True, kw_only=True)
class DatabaseURL:
    """A URL for SQLAlchemy, the options that it cannot hold, and the secrets among its options."""

    url: URL
    connect_timeout: float | None = None
    server_settings: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


def read_url(text: str, secret: str) -> DatabaseURL:
    """Parse a URL in which `{}` stands for the secret. Raises `InvalidUrl`."""
    placeholder = "opencloud-secret"
    try:
        url = make_url(text.replace("{}", placeholder))
        driver = _DRIVERS[url.drivername.partition("+")[0]]
    except (ArgumentError, ValueError, KeyError):
        raise InvalidUrl("is not a database URL (sqlite:///… or postgresql://…)") from None
    url = url.set(
        drivername=driver,
        # filled in after parsing, since the URL object percent-encodes what it renders
        username=url.username and url.username.replace(placeholder, secret),
        password=url.password and url.password.replace(placeholder, secret),
    )
    if driver == _DRIVERS["sqlite"]:
        return DatabaseURL(url=_in_a_directory(url), server_settings={})
    return _translated(url)


def _in_a_directory(url: URL) -> URL:
    """The SQLite URL with `~` expanded; its file may be missing, its directory may not."""
    path = url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        return url
    try:
        file = Path(path).expanduser() if path.startswith("~") else Path(path)
    except RuntimeError as error:
        raise InvalidUrl(f"names {path}, but no home directory is known") from error
    if not file.parent.is_dir():
        raise InvalidUrl(f"names {file}, but there is no directory {file.parent}")
    if file.is_dir():
        raise InvalidUrl(f"names {file}, which is a directory")
    return url.set(database=str(file)) if path.startswith("~") else url


def _translated(url: URL) -> DatabaseURL:
    options: dict[str, Any] = dict(url.query)
    ignored = tuple(sorted(name for name in options if name in _IGNORED))
    if str(options.get("client_encoding", "")).lower().replace("-", "") == "utf8":
        ignored = tuple(name for name in ignored if name != "client_encoding")  # as asyncpg's is
    dsn: dict[str, Any] = {name: options[name] for name in _IN_A_DSN if name in options}
    server_settings = {
        name: value for name in _SERVER_SETTINGS if isinstance(value := options.get(name), str)
    }
    url = url.difference_update_query((*_IGNORED, *_IN_A_DSN, *_SERVER_SETTINGS, "connect_timeout"))
    if unknown := sorted(set(url.query) - _DRIVERS_OWN):
        raise InvalidUrl(f"has the option {unknown[0]}, which neither libpq nor asyncpg has")
    if dsn:
        url = url.update_query_dict({"dsn": f"postgresql://?{urlencode(dsn, doseq=True)}"})
    if "sslrootcert" in dsn:
        try:
            check_certificates(dsn["sslrootcert"])
        except OSError:
            raise InvalidUrl(
                "names an sslrootcert that is no readable file of certificates"
            ) from None
    return DatabaseURL(
        url=url,
        connect_timeout=_seconds(options.get("connect_timeout")),
        server_settings=server_settings,
        ignored=ignored,
        secrets=tuple(str(options[name]) for name in _SECRETS if name in options),
    )


def _seconds(text: Any) -> float | None:
    """libpq's `connect_timeout`: whole seconds; 0 and less mean no limit, here our own."""
    if text is None:
        return None
    try:
        seconds = int(text)
    except (TypeError, ValueError):
        raise InvalidUrl("has a connect_timeout that is no whole number of seconds") from None
    return float(seconds) if seconds > 0 else None


def check_certificates(path: str | tuple[str, ...]) -> None:
    """Raise `OSError` unless the file has certificates of authorities.

    A connection would count the missing file as an outage, and wait for its end.
    """
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(path))


def decoded(secret: str) -> str | None:
    """The secret that `secret` is the percent-encoded form of; None if it has no such form."""
    return unquote(secret) if _ENCODED.fullmatch(secret) else None
