"""Cancelling one job, or many."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp_apispec import docs, json_schema, match_info_schema, response_schema

from common.jobs.lifecycle import Cancellation
from gateway.http.keys import USER
from gateway.http.responses import json_response
from gateway.http.streaming import send_json
from gateway.jobs.cancel.schemas import RESULT_EXAMPLE, CancelSchema, ReasonSchema, ResultSchema
from gateway.jobs.cancel.service import Cancelling
from gateway.jobs.handlers import JOBS
from gateway.jobs.labels import parse_label
from gateway.jobs.schemas import JOB_EXAMPLE, JobIdSchema, JobSchema

CANCELLING: Final = web.AppKey("cancelling", Cancelling)

_CANCELLED_EXAMPLE: Final = {
    **JOB_EXAMPLE,
    "status": "error",
    "date_finished": "2026-01-01T12:30:00.123456",
    "runtime_details": "Cancelled by user@example.com: wrong file",
}


@docs(
    tags=["Jobs"],
    summary="Cancel a job",
    description="Ends the job in `error`. A hand-over that has not gone out is dropped; a worker "
    "that runs the job is stopped at its next report. Files that are there stay, and no mail is "
    "sent. Repeated, it changes nothing.",
    errors={404: "Job not found", 409: "The job has ended already"},
    request_example={"reason": "wrong file"},
    response_example=_CANCELLED_EXAMPLE,
)
@match_info_schema(JobIdSchema)
@json_schema(ReasonSchema)
@response_schema(JobSchema, HTTPStatus.ACCEPTED, description="The job.")
async def cancel_job(request: web.Request) -> web.StreamResponse:
    user, job_id = request[USER], request["match_info"]["job_id"]
    await request.app[CANCELLING].one(user, job_id, request["json"]["reason"])
    return await send_json(request, await request.app[JOBS].find(user, job_id), HTTPStatus.ACCEPTED)


@docs(
    tags=["Jobs"],
    summary="Cancel jobs",
    description="Cancels jobs by their ids, by a label, or by the batch that they were submitted "
    "in. A label or a batch that matches none of the caller's jobs gives an empty list.",
    request_example={"ids": [1, 2], "reason": "wrong file"},
    response_example=RESULT_EXAMPLE,
)
@json_schema(CancelSchema)
@response_schema(ResultSchema(many=True), HTTPStatus.OK, description="What it came to for each.")
async def cancel_many(request: web.Request) -> web.Response:
    user, wanted, cancelling = request[USER], request["json"], request.app[CANCELLING]
    reason = wanted["reason"]
    if "ids" in wanted:
        results = await cancelling.many(user, wanted["ids"], reason)
    elif "label" in wanted:
        results = await cancelling.of_label(user, parse_label(wanted["label"]), reason)
    else:
        results = await cancelling.of_batch(user, wanted["batch_id"], reason)
    return json_response(_as_json(results))


def _as_json(results: Mapping[int, Cancellation]) -> list[dict[str, Any]]:
    return [{"id": _number(job_id), "result": result} for job_id, result in results.items()]


def _number(value: int) -> int | orjson.Fragment:
    """A number of any size, as it was sent; orjson itself writes 64 bits."""
    return value if value.bit_length() < 64 else orjson.Fragment(str(value))
