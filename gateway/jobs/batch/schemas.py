"""Requests and answers about batches of jobs."""

from typing import Any, Final

from marshmallow import ValidationError, fields

from gateway.http.fields import Items, PartAsSent, RequestSchema, invalid
from gateway.http.responses import AnswerSchema
from gateway.jobs.schemas import JOB_EXAMPLE, REQUEST_EXAMPLE, JobPartsSchema, JobSchema

MOST_JOBS: Final = 500

BATCH_REQUEST_EXAMPLE: Final[dict[str, Any]] = {
    "template": {name: REQUEST_EXAMPLE[name] for name in REQUEST_EXAMPLE if name != "job_name"},
    "jobs": [{"job_name": "train_1"}, {"job_name": "train_2", "priority": 1}],
}
BATCH_EXAMPLE: Final[dict[str, Any]] = {
    "batch_id": 4,
    "jobs": [
        JOB_EXAMPLE,
        {
            **JOB_EXAMPLE,
            "id": 2,
            "job_name": "train_2",
            "priority": 1,
            "paths_out": {kind: f"{kind}/train_2" for kind in JOB_EXAMPLE["paths_out"]},
        },
    ],
}


class BatchRequestSchema(RequestSchema):
    """Jobs to start together."""

    jobs = Items(
        PartAsSent(JobPartsSchema),
        most=MOST_JOBS,
        required=True,
        metadata={"minItems": 1, "description": "Each completes or replaces the template."},
    )
    template = PartAsSent(
        JobPartsSchema,
        load_default=None,
        allow_none=True,
        metadata={"description": "What the jobs have in common; objects are combined key by key."},
    )

    def load(self, data: Any, **kwargs: Any) -> Any:
        """Raises `ValidationError`, also for no jobs at all."""
        loaded = super().load(data, **kwargs)
        if not loaded["jobs"]:
            none = invalid("value_error", f"Value error, 0 items given, 1 to {MOST_JOBS} allowed")
            raise ValidationError({"jobs": none.messages})
        return loaded


class BatchSchema(AnswerSchema):
    """Jobs that were started together."""

    batch_id = fields.Integer(metadata={"description": "Names them in `POST /jobs/cancel`."})
    jobs = fields.List(fields.Nested(JobSchema), metadata={"description": "In the given order."})
