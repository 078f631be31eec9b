"""`/jobs`."""

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp_apispec import (
    docs,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from gateway.http.admission import Work, compute
from gateway.http.audit import audit
from gateway.http.disconnects import cancelled_on_disconnect
from gateway.http.errors import Answer, ErrorTable, Fault
from gateway.http.keys import REQUEST_ID, USER
from gateway.http.responses import json_bytes, json_response
from gateway.http.streaming import Chunks, Content, send
from gateway.http.validation import inspected_by
from gateway.jobs.errors import (
    JobEnded,
    JobNotFound,
    NameTaken,
    ResultsInTheWay,
    SubmissionRefused,
    TooManyInputs,
)
from gateway.jobs.events.handlers import EVENTS
from gateway.jobs.events.schemas import WaitSchema
from gateway.jobs.schemas import (
    JOB_EXAMPLE,
    REQUEST_EXAMPLE,
    JobIdSchema,
    JobRequestSchema,
    JobSchema,
    PageSchema,
)
from gateway.jobs.service import Jobs

JOBS: Final = web.AppKey("jobs", Jobs)

ERRORS: Final[ErrorTable] = {
    JobNotFound: Answer(HTTPStatus.NOT_FOUND, "Job not found"),
    JobEnded: Answer(HTTPStatus.CONFLICT, "The job has ended already"),
    SubmissionRefused: Answer(HTTPStatus.BAD_REQUEST),
    NameTaken: Answer(HTTPStatus.CONFLICT, "Job name must be unique"),
    ResultsInTheWay: Answer(HTTPStatus.CONFLICT),
    TooManyInputs: Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
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
    request_example=REQUEST_EXAMPLE,
    response_example=JOB_EXAMPLE,
)
@inspected_by(_inspect)
@json_schema(JobRequestSchema)
@response_schema(JobSchema, HTTPStatus.CREATED, description="The job.")
async def start_job(request: web.Request) -> web.Response:
    job = await request.app[JOBS].submit(
        request[USER],
        request["json"],
        correlation_id=request[REQUEST_ID],
        looking_up=Work(request, "submission"),
        compute=partial(compute, request),
    )
    return json_response(job, status=HTTPStatus.CREATED)


@docs(
    tags=["Jobs"],
    summary="List jobs",
    description="The caller's jobs, newest first over the whole set, so that pages do not overlap.",
    response_example=[JOB_EXAMPLE],
)
@querystring_schema(PageSchema)
@response_schema(JobSchema(many=True), HTTPStatus.OK, description="The jobs.")
async def list_jobs(request: web.Request) -> web.StreamResponse:
    page = request["querystring"]
    found = await request.app[JOBS].page(request[USER], offset=page["offset"], limit=page["limit"])
    return await answer(request, found)


@docs(
    tags=["Jobs"],
    summary="Describe a job",
    description="One of the caller's jobs; those of others are answered like unknown ones.",
    errors={404: "Job not found"},
    response_example=JOB_EXAMPLE,
)
@match_info_schema(JobIdSchema)
@querystring_schema(WaitSchema)
@response_schema(JobSchema, HTTPStatus.OK, description="The job.")
async def describe_job(request: web.Request) -> web.StreamResponse:
    user, job_id = request[USER], request["match_info"]["job_id"]
    if seconds := request["querystring"]["wait"]:
        with cancelled_on_disconnect(request):
            await request.app[EVENTS].wait_for_change(user, job_id, seconds=seconds)
    return await answer(request, await request.app[JOBS].find(user, job_id))


async def answer(
    request: web.Request, found: bytes | Chunks, *, status: HTTPStatus = HTTPStatus.OK
) -> web.StreamResponse:
    """Answer with jobs as `Jobs.find` and `Jobs.page` give them."""
    if isinstance(found, bytes):
        return json_bytes(found, status=status)
    return await send(request, Content(status, {"Content-Type": "application/json"}, found))


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
