"""`PUT /_job_status`."""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, json_schema

from common.jobs.lifecycle import Report, Source, Status
from gateway.http.fields import Choice, RequestSchema, Text, Whole
from gateway.http.responses import json_response
from gateway.job_status.service import JobStatusService

JOB_STATUS: Final = web.AppKey("job_status", JobStatusService)

_EXAMPLE: Final = {"job_id": 1, "status": "running", "runtime_details": "epoch 3 of 100"}


class StatusUpdateSchema(RequestSchema):
    """What a worker reports.

    It comes once. The end of a log that is not UTF-8, which a Python client sends with surrogates
    in it, must not cost the job its `error`.
    """

    mends_texts = True

    job_id = Whole(required=True)
    status = Choice([status.value for status in Status], required=True)
    runtime_details = Text(load_default=None, allow_none=True)


class ApiKeySchema(RequestSchema):
    """The internal key."""

    x_api_key = Text(required=True, data_key="x-api-key")


@docs(
    tags=["Internal"],
    summary="Report a job's status",
    description="Called by the worker-facing API. A 404 tells it to delete its copy of the job and "
    "to stop the worker, so it is never answered for a job that exists.",
    errors={401: "unauthorized", 404: None, 413: None},
    request_example=_EXAMPLE,
    responses={
        "200": {
            "description": "The status that was sent.",
            "content": {"application/json": {"schema": {"type": "string"}, "example": "running"}},
        }
    },
)
@headers_schema(ApiKeySchema)
@json_schema(StatusUpdateSchema)
async def update_status(request: web.Request) -> web.Response:
    update = request["json"]
    details = (update["runtime_details"] or "").replace("\0", "")
    report = Report(Status(update["status"]), details or None, Source.WORKER)
    await request.app[JOB_STATUS].report(update["job_id"], report)
    return json_response(report.status, status=HTTPStatus.OK)
