"""`/jobs`."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp_apispec import (
    docs,
    headers_schema,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from common.jobs.answer import Job
from gateway.http.admission import Work, compute
from gateway.http.audit import audit
from gateway.http.disconnects import cancelled_on_disconnect
from gateway.http.errors import Answer, ErrorTable, Fault
from gateway.http.keys import REQUEST_ID, USER
from gateway.http.responses import json_bytes
from gateway.http.streaming import send_json
from gateway.http.validation import inspected_by
from gateway.jobs.errors import (
    BatchNameTaken,
    JobEnded,
    JobNotFound,
    NameTaken,
    ResultsInTheWay,
    SubmissionRefused,
    TooManyInputs,
)
from gateway.jobs.events.handlers import EVENTS
from gateway.jobs.finding.schemas import DescribeSchema, DetailedJobSchema
from gateway.jobs.idempotency import handlers as idempotency
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.idempotency.handlers import created
from gateway.jobs.idempotency.schemas import KEY_PARAMETER, REPLAYED_HEADER, IdempotencyKeySchema
from gateway.jobs.schemas import (
    JOB_EXAMPLE,
    REQUEST_EXAMPLE,
    JobIdSchema,
    JobRequestSchema,
    JobSchema,
)
from gateway.jobs.service import Jobs

JOBS: Final = web.AppKey("jobs", Jobs)

ERRORS: Final[ErrorTable] = {
    JobNotFound: Answer(HTTPStatus.NOT_FOUND, "Job not found"),
    JobEnded: Answer(HTTPStatus.CONFLICT, "The job has ended already"),
    SubmissionRefused: Answer(HTTPStatus.BAD_REQUEST),
    NameTaken: Answer(HTTPStatus.CONFLICT, "Job name must be unique"),
    BatchNameTaken: Answer(HTTPStatus.CONFLICT),
    ResultsInTheWay: Answer(HTTPStatus.CONFLICT),
    TooManyInputs: Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    **idempotency.ERRORS,
}


async def _inspect(request: web.Request, valid: Mapping[str, Any]) -> list[Fault]:
    """Faults against the application configuration, beside those against the schema."""
    body = valid.get("json", {})
    return await request.app[JOBS].find_faults(request[USER], body, partial(compute, request))


@docs(
    tags=["Jobs"],
    summary="Start a job",
    description="Queues a job. Its inputs are a snapshot of names, not of bytes: an input that is "
    "deleted before a worker pulls the job makes the job fail there.",
    errors={
        400: "The input 'config/exp1' does not exist: config_id is relative to 'config/'",
        409: "Job name must be unique",
        413: "A job may have at most 10000 input files",
    },
    parameters=[KEY_PARAMETER],
    request_example={**REQUEST_EXAMPLE, "labels": {"exp": "7"}},
    response_example=JOB_EXAMPLE,
    response_headers=REPLAYED_HEADER,
)
@inspected_by(_inspect)
@headers_schema(IdempotencyKeySchema)
@json_schema(JobRequestSchema)
@response_schema(JobSchema, HTTPStatus.CREATED, description="The job.")
async def start_job(request: web.Request) -> web.Response:
    async def submit(claim: Claim | None) -> Job:
        return await request.app[JOBS].submit(
            request[USER],
            request["json"],
            correlation_id=request[REQUEST_ID],
            looking_up=Work(request, "submission"),
            compute=partial(compute, request),
            claim=claim,
        )

    return await created(request, submit)


@docs(
    tags=["Jobs"],
    summary="Describe a job",
    description="One of the caller's jobs; those of others are answered like unknown ones.",
    errors={404: "Job not found"},
    response_example=JOB_EXAMPLE,
)
@match_info_schema(JobIdSchema)
@querystring_schema(DescribeSchema)
@response_schema(DetailedJobSchema, HTTPStatus.OK, description="The job.")
async def describe_job(request: web.Request) -> web.StreamResponse:
    user, job_id = request[USER], request["match_info"]["job_id"]
    jobs, query = request.app[JOBS], request["querystring"]
    if seconds := query["wait"]:
        with cancelled_on_disconnect(request):
            await request.app[EVENTS].wait_for_change(user, job_id, seconds=seconds)
    return await send_json(request, await jobs.find(user, job_id, details=query["details"]))


@docs(
    tags=["Jobs"],
    summary="Delete a job",
    description="Removes the job, its hand-over if that has not happened yet, and its output, log "
    "and artifact directories. Its worker learns from its next status update that it has to stop.",
    errors={404: "Job not found"},
    responses={"204": {"description": "The job is gone."}},
)
@match_info_schema(JobIdSchema)
async def delete_job(request: web.Request) -> web.Response:
    job_id = request["match_info"]["job_id"]
    await request.app[JOBS].delete(request[USER], job_id)
    audit(request, "delete_job", target=f"jobs/{job_id}")
    return web.Response(status=HTTPStatus.NO_CONTENT)


@docs(
    tags=["Jobs"],
    summary="List applications",
    description="The application configuration as it is: what can be run, and how.",
    responses={
        "200": {
            "description": "application → version → entrypoint.",
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {
                        "decode": {"v0_10_1": {"train": {"app": {}, "handler": {}}}},
                    },
                }
            },
        }
    },
)
async def list_applications(request: web.Request) -> web.Response:
    return json_bytes(await request.app[JOBS].applications())
