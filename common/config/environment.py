"""Variables from the environment (or `.env`).

Only this module and those named `settings` read the environment. All wrong variables are reported
together, each in a sentence that names it. An empty variable counts as unset.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values, load_dotenv
from environs import Env, EnvError

from common.config.names import misspelt
from common.config.secrets import SecretError, read_secret

T = TypeVar("T")

_PLACEHOLDER: Final = re.compile(r"change[-_ ]?me", re.IGNORECASE)
_SHORT: Final = 16
"""Characters below which a secret may be guessed."""


class SettingsError(Exception):
    """Variables are missing or wrong; the message names each."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A setting that is accepted, although it may not be what was meant; logged at the start."""

    event: str
    fields: tuple[tuple[str, str], ...]


class Reader:
    """Reads variables; collects their names, their faults, and the secrets among them."""

    def __init__(self, *, dotenv: Path | None = None) -> None:
        self.names: set[str] = set()
        self.secrets: list[str] = []
        self.short_secrets: list[str] = []
        self.warnings: list[Warned] = []
        self._faults: list[str] = []
        self._env = Env()
        if dotenv is not None and dotenv.is_file():
            load_dotenv(dotenv)  # the environment wins; AWS's own variables count as well
            for name, likely in misspelt(dotenv_values(dotenv)):
                self.warn("settings.name_unknown", variable=name, likely=likely, file=str(dotenv))

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
        """Whether the variable is set, but empty."""
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
        scheme, separator, rest = value.partition("://")
        value = f"{scheme.lower()}{separator}{rest}"
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
        """Treat the user information of an address as a secret."""
        try:
            user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        except ValueError:
            return  # `http_url` reports it
        if user or password:
            self.secrets.append(unquote(password or user))

    def secret(self, name: str, *, required: bool = False) -> str:
        """A secret in any of the forms of `common.config.secrets`."""
        text = self.text(name, required=required)
        try:
            value = read_secret(text) if text else ""
        except SecretError as error:
            self.fault(f"{name} cannot be read: {error}")
            return ""
        if value:
            self.keep_secret(name, value)
        return value

    def keep_secret(self, name: str, value: str) -> None:
        """Keep `value` out of the logs; refuse the placeholder unless `PROD` is false."""
        self.secrets.append(value)
        if len(value) < _SHORT:
            self.short_secrets.append(name)
        if _PLACEHOLDER.fullmatch(value) and self.flag("PROD", default=None) is not False:
            self.fault(f"{name} still has its placeholder, which only PROD=false accepts")

    def fault(self, sentence: str) -> None:
        self._faults.append(sentence)

    def warn(self, event: str, **fields: str) -> None:
        self.warnings.append(Warned(event, tuple(fields.items())))

    def check(self) -> None:
        """Raise `SettingsError` if anything read so far was wrong."""
        if self._faults:
            raise SettingsError("; ".join(dict.fromkeys(self._faults)))


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")


def without_credentials(url: str) -> str:
    """The address without its user information, for logs."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _names_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and not re.search(r"[\s\x00-\x1f,;]", parts.netloc)


def open_reader() -> Reader:
    """A reader of the environment and of `.env` in the working directory."""
    return Reader(dotenv=Path.cwd() / ".env")


def load_or_exit(service: str, load: Callable[[Reader], T]) -> T:
    """Read the settings of `service`; faults end the process with one line."""
    reader = open_reader()
    try:
        settings = load(reader)
        reader.check()
    except SettingsError as error:
        exit_with(service, f"settings: {error}.")
    return settings


def exit_with(service: str, sentence: str) -> NoReturn:
    """End the process with one line on standard error."""
    print(f"{service}: {sentence}", file=sys.stderr)
    raise SystemExit(1)
