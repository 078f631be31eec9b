"""`PUT /_job_status`. Its caller authenticates with the internal key (`INTERNAL` in
`gateway.routes`, checked in `gateway.http.middlewares`)."""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, json_schema

from common.jobs.lifecycle import Report, Source, Status
from gateway.http.errors import Answer, ErrorTable
from gateway.http.fields import AnyText, Choice, RequestSchema, Whole
from gateway.http.responses import json_response
from gateway.job_status.service import JobStatusService, UnknownNumber

JOB_STATUS: Final = web.AppKey("job_status", JobStatusService)

ERRORS: Final[ErrorTable] = {UnknownNumber: Answer(HTTPStatus.NOT_FOUND, "Not Found")}

_EXAMPLE: Final = {"job_id": 1, "status": "running", "runtime_details": "epoch 3 of 100"}


class StatusUpdateSchema(RequestSchema):
    """A worker's report.

    It is sent once, so the end of a log that is not UTF-8 (lone surrogates, from a Python client)
    must not cost the job its `error`.
    """

    mends_texts = True

    job_id = Whole(required=True)
    status = Choice([status.value for status in Status], required=True)
    runtime_details = AnyText(load_default=None, allow_none=True)


class ApiKeySchema(RequestSchema):
    """The internal key."""

    x_api_key = AnyText(required=True, data_key="x-api-key")


@docs(
    tags=["Internal"],
    summary="Report a job's status",
    description="Called by the worker-facing API. On a 404 it deletes its copy of the job and "
    "stops the worker, so a job that exists is never answered with one.",
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
