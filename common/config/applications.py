"""The application configuration: what users can run, and how workers run it.

A file (or an S3 object) of the form

    <application>: {<version>: {<entrypoint>: {app: {cmd, env}, handler: {…}, aws_resources: {…}}}}

is read at start, when an invalid one is an error that names the key, and again after each change;
an invalid edit is logged, and the last valid configuration stays in force.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
import yaml

from common.aws import AwsError
from common.config.application_source import open_source

FILES_DOWN: Final = ("config_id", "data_ids", "artifact_ids")
FILES_UP: Final = ("output", "log", "artifact")

_LONGEST_TIMEOUT: Final = 366 * 86_400

log: Any = structlog.get_logger()


class InvalidApplications(Exception):
    """The configuration cannot be used; the message names the key."""


@dataclass(frozen=True, slots=True)
class Entrypoint:
    """Something that can be run. `timeout` is in seconds; None if none is configured."""

    cmd: tuple[str, ...]
    env: tuple[str, ...]
    image_url: str
    image_name: str
    image_version: str
    aws_job_def: str | None
    files_down: Mapping[str, str]
    files_up: Mapping[str, str]
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """One valid version of the configuration; `as_json` is the whole file."""

    as_json: bytes
    entrypoints: Mapping[str, Mapping[str, Mapping[str, Entrypoint]]]

    def find(self, application: object, version: object, entrypoint: object) -> Entrypoint | None:
        """The entrypoint; None if it is not (or no longer) configured."""
        found: Any = self.entrypoints
        for key in (application, version, entrypoint):
            if not isinstance(key, str):
                return None
            found = found.get(key, {})
        return found or None


class Applications:
    """The configuration in force: `load` at start, `current` from then on, `close` at the end.

    One task at a time reads it again; callers wait for it only briefly, since the last valid
    configuration is at hand.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._source = open_source(location)
        self._catalogue: Catalogue | None = None
        self._reading: asyncio.Task[None] | None = None
        self._began = 0.0
        self._unreadable = ""

    async def load(self) -> None:
        """Read the configuration at start. Raises `InvalidApplications`."""
        try:
            content = await self._source.read_if_changed()
        except (OSError, AwsError) as error:
            raise InvalidApplications(
                f"APPLICATION_CONFIG_FILE: {self._location} cannot be read"
                f" ({getattr(error, 'strerror', None) or error})"
            ) from error
        self._catalogue = await asyncio.to_thread(parse, content or b"")

    async def current(self) -> Catalogue:
        """The configuration in force, read again first if it has changed.

        Raises `InvalidApplications` only if there has never been a valid one.
        """
        if self._reading is None and self._source.is_due():
            self._began = time.monotonic()
            self._reading = asyncio.create_task(self._read_again())
        if self._reading is not None:
            left = self._began + self._source.wait - time.monotonic()
            if left > 0 or self._catalogue is None:
                await asyncio.wait([self._reading], timeout=left if self._catalogue else None)
        if self._catalogue is None:
            raise InvalidApplications("there is no valid application configuration yet")
        return self._catalogue

    async def _read_again(self) -> None:
        try:
            content = await self._source.read_if_changed()
            self._unreadable = ""
            if content is not None:
                self._catalogue = await asyncio.to_thread(parse, content)
                log.info("applications.reloaded", location=self._location)
        except InvalidApplications as error:
            self._refuse(str(error))
        except (OSError, AwsError) as error:
            before, self._unreadable = self._unreadable, str(error) or type(error).__name__
            if self._unreadable != before:  # logged once, not at every try
                self._refuse(self._unreadable)
        except Exception:
            log.exception("applications.failed", location=self._location)
        finally:
            self._reading = None

    def _refuse(self, reason: str) -> None:
        log.error("applications.refused", location=self._location, reason=reason)

    async def close(self) -> None:
        """Cancel a reading in progress."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def timeout_of(self, application: Mapping[str, Any]) -> float | None:
        """Seconds that a job of this application may take; None if that is not configured."""
        keys = (application.get(key) for key in ("application", "version", "entrypoint"))
        found = (await self.current()).find(*keys)
        return found.timeout if found else None


def parse(content: bytes) -> Catalogue:
    """Validate a configuration. Raises `InvalidApplications`, naming the key."""
    try:
        tree = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, ValueError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}" if place else ""
        raise InvalidApplications(f"the application configuration is not YAML{where}") from error
    entrypoints: dict[str, dict[str, dict[str, Entrypoint]]] = {}
    for application, versions in _mapping(tree, "").items():
        for version, names in _mapping(versions, application).items():
            for name, item in _mapping(names, f"{application}.{version}").items():
                place = f"{application}.{version}.{name}"
                built = _entrypoint(_mapping(item, place), place, application, version)
                entrypoints.setdefault(application, {}).setdefault(version, {})[name] = built
    try:
        as_json = orjson.dumps(tree)
    except TypeError as error:
        raise InvalidApplications(f"a value is not plain data ({error})") from error
    return Catalogue(as_json=as_json, entrypoints=entrypoints)


def _entrypoint(item: dict[str, Any], place: str, application: str, version: str) -> Entrypoint:
    app = _mapping(item.get("app"), f"{place}.app")
    handler = _mapping(item.get("handler"), f"{place}.handler")

    def text(key: str, default: str | None = None) -> str:
        return _text(handler.get(key, default), f"{place}.handler.{key}")

    return Entrypoint(
        cmd=_texts(app.get("cmd"), f"{place}.app.cmd"),
        env=_texts(app.get("env") or [], f"{place}.app.env"),
        image_url=text("image_url"),
        image_name=text("image_name", application),
        image_version=text("image_version", version),
        aws_job_def=None if handler.get("aws_job_def") is None else text("aws_job_def"),
        files_down=_paths(handler.get("files_down"), f"{place}.handler.files_down", FILES_DOWN),
        files_up=_paths(handler.get("files_up"), f"{place}.handler.files_up", FILES_UP),
        timeout=_timeout(item, handler, place),
    )


def _timeout(item: dict[str, Any], handler: dict[str, Any], place: str) -> float | None:
    for owner, where in ((handler, f"{place}.handler"), (item, place)):
        if owner.get("aws_resources") is None:
            continue
        where = f"{where}.aws_resources"
        resources = _mapping(owner["aws_resources"], where)
        _mapping(resources.get("hardware") or {}, f"{where}.hardware")
        if (timeout := resources.get("timeout")) is None:
            continue
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not is_number or not 0 < timeout <= _LONGEST_TIMEOUT:
            raise InvalidApplications(
                f"{where}.timeout must be a number of seconds above 0, a year's at most"
            )
        return float(timeout)
    return None


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidApplications(f"{place or 'the whole file'} must be a mapping")
    for key in value:
        if not isinstance(key, str) or not key:
            where = f"{place}.{key}".lstrip(".")
            raise InvalidApplications(f"{where}: the key must be text (put it in quotes)")
    return value


def _paths(value: Any, place: str, allowed: tuple[str, ...]) -> dict[str, str]:
    found = _mapping(value, place)
    for key, path in found.items():
        if key not in allowed:
            raise InvalidApplications(f"{place}.{key}: the key must be one of {', '.join(allowed)}")
        _text(path, f"{place}.{key}")
    return found


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidApplications(f"{place} must be a list of texts")
    return tuple(_text(item, f"{place}.{index}") for index, item in enumerate(value))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidApplications(f"{place} must be a text that is not empty")
    return value
