"""A submission: checked against the configuration, as a row, and as the peer's message."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
from marshmallow import ValidationError

from common.config.catalogue import Catalogue, Entrypoint
from common.jobs.lifecycle import Status
from common.storage.paths import UserPath
from common.storage.protocol import Storage
from gateway.http.errors import Fault, Invalid, Location
from gateway.http.fields import Part
from gateway.http.validation import flatten
from gateway.identity import User
from gateway.jobs.inputs import Selection, count_ids, parse_selections
from gateway.jobs.schemas import HARDWARE_KEYS, JobRequestSchema

RESULTS: Final = ("output", "log", "artifact")
"""Top-level directories of a job's results; each has a directory of the job's name."""

_schema: Final = Part(JobRequestSchema)  # as a part: half the time, for hundreds of them

_MANY_IDS: Final = 1_000

_NAMES_SHOWN: Final = 20
"""Environment variables that are named as not allowed."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A valid submission; `body` has the defaults filled in."""

    user: User
    body: Mapping[str, Any]
    entrypoint: Entrypoint
    selections: list[Selection]

    @property
    def name(self) -> str:
        return str(self.body["job_name"])

    @property
    def labels(self) -> dict[str, str]:
        return self.body["labels"] or {}

    @property
    def paths_out(self) -> dict[str, str]:
        return {kind: f"{kind}/{self.name}" for kind in RESULTS}

    @property
    def result_paths(self) -> list[UserPath]:
        """`paths_out` as paths; the name has been checked."""
        return [UserPath(self.user.id, (kind, self.name)) for kind in RESULTS]


def is_long(body: Mapping[str, Any]) -> bool:
    """Whether a body, perhaps incomplete, has so many ids that checking it takes long."""
    files_down = (body.get("attributes") or {}).get("files_down") or {}
    return count_ids(files_down) > _MANY_IDS


def parse_request(user: User, body: Mapping[str, Any], catalogue: Catalogue) -> JobRequest:
    """Check a request body against the application configuration. Raises `Invalid`."""
    entrypoint, selections, faults = _inspect(user, body, catalogue)
    if faults or entrypoint is None:
        raise Invalid(*faults)
    hardware = body["hardware"] or dict.fromkeys(HARDWARE_KEYS)
    complete = {**body, "priority": body["priority"] or 0, "hardware": hardware}
    return JobRequest(user, complete, entrypoint, selections)


def read_request(
    user: User, data: Any, catalogue: Catalogue, place: Location = ("body",)
) -> JobRequest:
    """Check JSON that stands at `place` of the body against the schema and the configuration.

    Raises `Invalid` with all faults of both.
    """
    try:
        return parse_request(user, _schema.deserialize(data), catalogue)
    except ValidationError as error:
        valid = error.valid_data if isinstance(error.valid_data, dict) else {}
        faults = [*flatten(error.messages, ["body"]), *find_faults(user, valid, catalogue)]
    except Invalid as error:
        faults = [*error.faults]
    raise Invalid(*(replace(fault, loc=[*place, *fault.loc[1:]]) for fault in faults))


def combined(base: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `changes` replaces; objects are combined key by key."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        both = isinstance(before, dict) and isinstance(value, dict)
        result[key] = combined(before, value) if both else value
    return result


def find_faults(user: User, body: Mapping[str, Any], catalogue: Catalogue) -> list[Fault]:
    """Further faults of a body of which only some parts are valid."""
    return _inspect(user, body, catalogue)[2]


def _inspect(
    user: User, body: Mapping[str, Any], catalogue: Catalogue
) -> tuple[Entrypoint | None, list[Selection], list[Fault]]:
    """The entrypoint, the selections and the faults; missing parts are skipped."""
    entrypoint, faults = _find_entrypoint(body.get("application") or {}, catalogue)
    attributes = body.get("attributes") or {}
    files_down = attributes.get("files_down") or {}
    selections, wrong_ids = parse_selections(user.id, files_down, entrypoint)
    faults.extend(wrong_ids)
    if entrypoint is not None:
        faults.extend(_check_env(attributes.get("env_vars") or {}, entrypoint))
    return entrypoint, selections, faults


def _find_entrypoint(
    application: Mapping[str, str], catalogue: Catalogue
) -> tuple[Entrypoint | None, list[Fault]]:
    choices: Any = catalogue.entrypoints
    for key in ("application", "version", "entrypoint"):
        given = application.get(key)
        if given is None:
            return None, []
        if given not in choices:
            allowed = ", ".join(choices) or "none"
            sentence = f"Value error, no {key} '{given}', allowed: {allowed}"
            return None, [Fault(["body", "application", key], sentence, "value_error")]
        choices = choices[given]
    return choices, []


def _check_env(env_vars: Mapping[str, str], entrypoint: Entrypoint) -> list[Fault]:
    unknown = [key for key in env_vars if key not in entrypoint.env]
    if not unknown:
        return []
    given = ", ".join(unknown[:_NAMES_SHOWN])
    allowed = ", ".join(entrypoint.env) or "none"
    sentence = f"Value error, environment variables not allowed: {given}; allowed: {allowed}"
    return [Fault(["body", "attributes"], sentence, "value_error")]


def job_row(
    request: JobRequest, correlation_id: str, *, repeated_from: int | None = None
) -> dict[str, Any]:
    """Values for the `jobs` table."""
    body = request.body
    return {
        "user_id": request.user.id,
        "user_email": request.user.mail_to,
        "job_name": request.name,
        "status": Status.QUEUED,
        "paths_out": request.paths_out,
        "environment": body["environment"],
        "priority": body["priority"],
        "application": body["application"],
        "attributes": body["attributes"],
        "hardware": body["hardware"],
        "notify": body.get("notify"),
        "correlation_id": correlation_id,
        "batch_id": None,
        "repeated_from": repeated_from,
    }


def handover_payload(
    request: JobRequest,
    files_down: Mapping[str, str] | orjson.Fragment,
    storage: Storage,
    created: datetime | str,
) -> str:
    """The message to the peer without `meta.job_id`, which the dispatcher fills in."""
    entrypoint, body = request.entrypoint, request.body
    handler = {
        "image_url": entrypoint.image_url,
        "image_name": entrypoint.image_name,
        "image_version": entrypoint.image_version,
        "entrypoint": body["application"]["entrypoint"],
        "files_down": files_down,
        "files_up": entrypoint.files_up,
    }
    if entrypoint.aws_job_def is not None:
        handler["aws_job_def"] = entrypoint.aws_job_def
    message = {
        "job": {
            "app": {"cmd": entrypoint.cmd, "env": body["attributes"]["env_vars"]},
            "handler": handler,
            "meta": {"date_created": created},
            "hardware": body["hardware"],
        },
        "environment": body["environment"],
        "group": None,
        "priority": body["priority"],
        "paths_upload": {
            kind: storage.uri(path)
            for kind, path in zip(RESULTS, request.result_paths, strict=True)
        },
    }
    return orjson.dumps(message).decode()
