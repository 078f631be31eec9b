"""The content of an application configuration: what users can run, and how workers run it.

<application>: {<version>: {<entrypoint>: {app: {cmd, env}, handler: {…}, aws_resources: {…}}}}
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from common.config.yaml_file import InvalidYaml, read_yaml

FILES_DOWN: Final = ("config_id", "data_ids", "artifact_ids")
FILES_UP: Final = ("output", "log", "artifact")

_ENTRYPOINT_KEYS: Final = ("app", "handler", "aws_resources")
_APP_KEYS: Final = ("cmd", "env")
_HANDLER_KEYS: Final = (
    "image_url",
    "image_name",
    "image_version",
    "aws_job_def",
    "files_down",
    "files_up",
    "aws_resources",
)
_RESOURCES_KEYS: Final = ("hardware", "timeout")

_LONGEST_TIMEOUT: Final = 366 * 86_400


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


def parse(content: bytes) -> Catalogue:
    """Validate a configuration. Raises `InvalidApplications`, naming the key."""
    try:
        tree = read_yaml(content)
    except InvalidYaml as error:
        raise InvalidApplications(str(error)) from error
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
    _check_keys(item, place, _ENTRYPOINT_KEYS)
    app = _mapping(item.get("app"), f"{place}.app")
    _check_keys(app, f"{place}.app", _APP_KEYS)
    handler = _mapping(item.get("handler"), f"{place}.handler")
    _check_keys(handler, f"{place}.handler", _HANDLER_KEYS)

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
        _check_keys(resources, where, _RESOURCES_KEYS)
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
    """Paths in the container, relative to the mount, which they must not leave."""
    found = _mapping(value, place)
    _check_keys(found, place, allowed)
    for key, path in found.items():
        if f"{posixpath.normpath(_text(path, f'{place}.{key}'))}/".startswith(("/", "../")):
            raise InvalidApplications(
                f"{place}.{key} must be a path below the mount (/data), not {path!r}"
            )
    return found


def _check_keys(value: Mapping[str, Any], place: str, allowed: tuple[str, ...]) -> None:
    for key in value:
        if key not in allowed:
            raise InvalidApplications(f"{place}.{key}: the key must be one of {', '.join(allowed)}")


def _texts(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidApplications(f"{place} must be a list of texts")
    return tuple(_text(item, f"{place}.{index}") for index, item in enumerate(value))


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidApplications(f"{place} must be a text that is not empty")
    return value
