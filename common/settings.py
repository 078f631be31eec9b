"""Reading settings from the environment (or `.env`): the parts that several services share.

Only settings modules read the environment. Every wrong variable is reported at once, in one
sentence that names it. An empty variable counts as one that is not set.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from dotenv import load_dotenv
from environs import Env, EnvError
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from common.secrets import SecretError, read_secret

T = TypeVar("T")

REPOSITORY: Final = Path(__file__).resolve().parent.parent
DEFAULT_APPLICATIONS: Final = str(REPOSITORY / "application_config.yaml")


class SettingsError(Exception):
    """One or more variables are missing or wrong; the message names each."""


class Reader:
    """Reads variables, collects what is wrong with them, and remembers their names."""

    def __init__(self, *, dotenv: Path | None = None) -> None:
        self.names: set[str] = set()
        self.secrets: list[str] = []
        self._faults: list[str] = []
        self._env = Env()
        if dotenv is not None and dotenv.is_file():
            load_dotenv(dotenv)  # the environment wins; AWS's own variables count as well

    def _read(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        self.names.add(name)
        if not os.environ.get(name, "").strip():
            return default
        try:
            return parse(name)
        except EnvError as error:
            self.fault(f"{name} is wrong: {_first_sentence(error)}")
            return default

    def is_blank(self, name: str) -> bool:
        """Whether the variable is there, but empty."""
        return name in os.environ and not os.environ[name].strip()

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        value = self._read(name, default, self._env.str).strip()
        if required and not value:
            self.fault(f"{name} is missing")
        return value

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = self.text(name, default)
        if value not in allowed:
            shown = " or ".join(repr(item) if item else "empty" for item in allowed)
            self.fault(f"{name} must be {shown}, not {value!r}")
        return value

    def flag(self, name: str, *, default: bool | None) -> bool | None:
        return self._read(name, default, self._env.bool)

    def whole(self, name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
        value = self._read(name, default, self._env.int)
        self._check_range(name, value, least, most)
        return value

    def seconds(self, name: str, default: float, *, least: float = 0.0) -> float:
        value = self._read(name, default, self._env.float)
        self._check_range(name, value, least, None)
        return value

    def _check_range(self, name: str, value: float, least: float, most: float | None) -> None:
        if not value >= least:
            self.fault(f"{name} must be at least {least}, not {value}")
        if most is not None and value > most:
            self.fault(f"{name} must be at most {most}, not {value}")

    def port(self, name: str, default: int) -> int:
        return self.whole(name, default, most=65_535)

    def http_url(self, name: str, default: str = "", *, required: bool = False) -> str:
        """An http(s) address without a trailing slash."""
        value = self.text(name, default, required=required)
        self._remember_credentials(value)
        if value and not value.startswith(("http://", "https://")):
            self.fault(f"{name} must start with http:// or https://")
        elif value and not _names_host(value):
            self.fault(
                f"{name} must name a host, and a port if any, as in https://example.org:8443"
            )
        else:
            return value.rstrip("/")
        return default

    def _remember_credentials(self, url: str) -> None:
        """What stands before the host of an address is not to be shown."""
        try:
            user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        except ValueError:
            return  # whoever uses it will say so
        if user or password:
            self.secrets.append(unquote(password or user))

    def secret(self, name: str, *, required: bool = False) -> str:
        """A secret in any of the three forms that `common.secrets` knows."""
        text = self.text(name, required=required)
        try:
            value = read_secret(text) if text else ""
        except SecretError as error:
            self.fault(f"{name} cannot be read: {error}")
            return ""
        if value:
            self.secrets.append(value)
        return value

    def fault(self, sentence: str) -> None:
        self._faults.append(sentence)

    def check(self) -> None:
        """Raise `SettingsError` if anything read so far was wrong."""
        if self._faults:
            raise SettingsError("; ".join(dict.fromkeys(self._faults)))


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def _names_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and not re.search(r"[\s\x00-\x1f]", parts.netloc)


def load_or_exit(service: str, load: Callable[[Reader], T]) -> T:
    """Read the settings of `service`; a wrong one ends the process with one sentence."""
    reader = Reader(dotenv=Path.cwd() / ".env")
    try:
        settings = load(reader)
        reader.check()
    except SettingsError as error:
        exit_with(service, f"settings: {error}.")
    return settings


def exit_with(service: str, sentence: str) -> NoReturn:
    """End the process with one sentence on standard error."""
    print(f"{service}: {sentence}", file=sys.stderr)
    raise SystemExit(1)


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the database is. Times in seconds.

    `statement_cache=False` is for a transaction-pooling proxy such as PgBouncer, behind which
    prepared statements and LISTEN do not work.
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
    if url.password:
        reader.secrets.append(str(url.password))
    return DatabaseSettings(
        url=url,
        pool_size=reader.whole("DATABASE_POOL_SIZE", 10, least=1),
        pool_timeout=reader.seconds("DATABASE_POOL_TIMEOUT", 3.0, least=0.1),
        startup_timeout=reader.seconds("DATABASE_STARTUP_TIMEOUT", 60.0),
        statement_cache=bool(reader.flag("DATABASE_STATEMENT_CACHE", default=True)),
    )


def _driver_url(text: str, secret: str) -> URL:
    """The URL with the asynchronous driver's name; raises `ValueError` for another database."""
    marker = "{}"
    placeholder = "opencloud-secret"
    url = make_url(text.replace(marker, placeholder))
    if marker in text:
        # fill in after parsing: the URL object percent-encodes what it renders
        url = url.set(
            username=(url.username or "").replace(placeholder, secret) or None,
            password=(url.password or "").replace(placeholder, secret) or None,
        )
    backend = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}.get(
        url.drivername.partition("+")[0]
    )
    if backend is None:
        raise ValueError(url.drivername)
    url = url.set(drivername={"sqlite": "sqlite+aiosqlite"}.get(backend, "postgresql+asyncpg"))
    if "sslmode" in url.query:  # libpq's name for what asyncpg calls ssl
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """Where users' files are; `root` is spelled exactly as the peer spells it."""

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
    """What is logged, how (`auto`: pretty on a terminal, else JSON), and what never is."""

    level: str = "INFO"
    form: str = "auto"
    secrets: tuple[str, ...] = field(default=(), repr=False)


def read_logs(reader: Reader) -> LogSettings:
    """Read last, so that every secret read before is kept out of the logs."""
    return LogSettings(
        level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
        form=reader.choice("LOG_FORMAT", "auto", ("auto", "json", "pretty")),
        secrets=tuple(dict.fromkeys(reader.secrets)),
    )


def read_stale_after(reader: Reader) -> float:
    """Seconds of silence after which a peer that can be asked is asked for a job."""
    return reader.seconds("STALE_AFTER", 120.0)


def read_silence_margin(reader: Reader) -> float:
    """Seconds for which a job may be silent beyond its application's time-out."""
    return reader.seconds("SILENCE_MARGIN", 3_600.0)
