"""Requests and answers about jobs."""

from typing import Any, Final

from marshmallow import fields

from common.jobs.lifecycle import Status
from common.notifications.choices import OF_JOBS
from gateway.http.fields import (
    MAX_INTEGER,
    Choice,
    Items,
    Name,
    Part,
    RequestSchema,
    Text,
    TextMap,
    Whole,
)
from gateway.http.responses import AnswerSchema
from gateway.jobs.labels import LabelMap

MAX_PAGE: Final = 10_000

_MOST_IDS: Final = 20_000
_LONGEST_ID: Final = 4_096
"""In characters: a path with redundant slashes, as `UserPath.parse` understands it."""

_MOST_VARIABLES: Final = 1_000
_LONGEST_VALUE: Final = 32_768
"""Of environment variables: a quarter of what Linux takes for one."""

APPLICATION_EXAMPLE: Final = {
    "application": "decode",
    "version": "v0_10_1",
    "entrypoint": "train",
}
REQUEST_EXAMPLE: Final[dict[str, Any]] = {
    "job_name": "train_1",
    "environment": "cloud",
    "priority": 0,
    "application": APPLICATION_EXAMPLE,
    "attributes": {
        "files_down": {"config_id": "exp1", "data_ids": ["exp1"], "artifact_ids": []},
        "env_vars": {},
    },
    "hardware": dict.fromkeys(("cpu_cores", "memory", "gpu_model", "gpu_archi", "gpu_mem")),
}
JOB_EXAMPLE: Final[dict[str, Any]] = {
    **REQUEST_EXAMPLE,
    "id": 1,
    "user_id": "3d4a8e0c-0f3b-4a0e-9c5d-1a2b3c4d5e6f",
    "user_email": "user@example.com",
    "date_created": "2026-01-01T12:00:00.123456",
    "date_started": None,
    "date_finished": None,
    "status": "queued",
    "runtime_details": None,
    "paths_out": {
        "output": "output/train_1",
        "log": "log/train_1",
        "artifact": "artifact/train_1",
    },
}


class ApplicationSchema(RequestSchema):
    """What to run: keys of the application configuration."""

    application = Text(required=True)
    version = Text(required=True)
    entrypoint = Text(required=True)


def _ids() -> Items:
    return Items(Text(longest=_LONGEST_ID), most=_MOST_IDS, load_default=None, allow_none=True)


class FilesDownSchema(RequestSchema):
    """Inputs, by the names of files or directories under `config/`, `data/`, `artifact/`."""

    config_id = Text(longest=_LONGEST_ID, load_default=None, allow_none=True)
    data_ids = _ids()
    artifact_ids = _ids()


class AttributesSchema(RequestSchema):
    """Inputs and environment variables."""

    files_down = Part(FilesDownSchema, required=True)
    env_vars = TextMap(
        most=_MOST_VARIABLES, longest=_LONGEST_VALUE, load_default=None, allow_none=True
    )


def _amount() -> Whole:
    return Whole(load_default=None, allow_none=True, least=-MAX_INTEGER, most=MAX_INTEGER)


class HardwareSchema(RequestSchema):
    """Minimum requirements of the worker; null: none."""

    cpu_cores = _amount()
    memory = _amount()
    gpu_model = Text(load_default=None, allow_none=True)
    gpu_archi = Text(load_default=None, allow_none=True)
    gpu_mem = _amount()


HARDWARE_KEYS: Final = tuple(HardwareSchema().fields)


class JobRequestSchema(RequestSchema):
    """A job to start."""

    job_name = Name(
        required=True,
        metadata={"description": "Unique per user; it becomes the name of directories."},
    )
    environment = Choice(
        ["cloud", "local"],
        load_default=None,
        allow_none=True,
        metadata={"description": "Where to run; null: anywhere."},
    )
    priority = Whole(load_default=0, allow_none=True, least=0, most=5)
    application = Part(ApplicationSchema, required=True)
    attributes = Part(AttributesSchema, required=True)
    hardware = Part(HardwareSchema, load_default=None, allow_none=True)
    labels = LabelMap(
        load_default=None,
        allow_none=True,
        metadata={"description": "To find the job by; null: none.", "example": {"exp": "7"}},
    )
    notify = Choice(
        OF_JOBS,
        load_default=None,
        allow_none=True,
        metadata={
            "description": "Which mails about this job are sent; null: as the user has chosen."
        },
    )


class ApplicationPartsSchema(ApplicationSchema):
    """Any part of what to run."""

    application = Text()
    version = Text()
    entrypoint = Text()


class AttributesPartsSchema(AttributesSchema):
    """Any part of the inputs and environment variables."""

    files_down = Part(FilesDownSchema)


class JobPartsSchema(JobRequestSchema):
    """Any part of a submission, which is complete and checked once it is combined with others."""

    job_name = Name(metadata={"description": "Unique per user."})
    application = Part(ApplicationPartsSchema)
    attributes = Part(AttributesPartsSchema)


class JobIdSchema(RequestSchema):
    """A job in the path."""

    job_id = Whole(required=True, metadata={"description": "The job's id.", "example": 1})


class PageSchema(RequestSchema):
    """A page of a list."""

    offset = Whole(
        load_default=0, least=0, metadata={"description": "How many of the newest to skip."}
    )
    limit = Whole(
        load_default=100,
        least=0,
        metadata={"description": f"How many at most; above {MAX_PAGE} counts as {MAX_PAGE}."},
    )


class PathsOutSchema(AnswerSchema):
    """The directories of the job's results."""

    output = fields.String()
    log = fields.String()
    artifact = fields.String()


class JobSchema(AnswerSchema):
    """A job."""

    id = fields.Integer()
    user_id = fields.String()
    user_email = fields.String(allow_none=True)
    job_name = fields.String(allow_none=True)
    environment = fields.String(allow_none=True, metadata={"enum": ["cloud", "local", None]})
    priority = fields.Integer()
    application = fields.Nested(ApplicationSchema)
    attributes = fields.Nested(AttributesSchema)
    hardware = fields.Nested(HardwareSchema)
    date_created = fields.String(
        allow_none=True, metadata={"description": "UTC, ISO 8601 without an offset."}
    )
    date_started = fields.String(allow_none=True)
    date_finished = fields.String(allow_none=True)
    status = fields.String(metadata={"enum": [status.value for status in Status]})
    runtime_details = fields.String(allow_none=True)
    paths_out = fields.Nested(PathsOutSchema)
