"""`POST /jobs/batch`."""

from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, json_schema, response_schema

from gateway.http.admission import Work
from gateway.http.keys import REQUEST_ID, USER
from gateway.jobs.batch.schemas import (
    BATCH_EXAMPLE,
    BATCH_REQUEST_EXAMPLE,
    BatchRequestSchema,
    BatchSchema,
)
from gateway.jobs.batch.service import Batches
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.idempotency.handlers import created
from gateway.jobs.idempotency.schemas import KEY_PARAMETER, REPLAYED_HEADER, IdempotencyKeySchema

BATCHES: Final = web.AppKey("batches", Batches)


@docs(
    tags=["Jobs"],
    summary="Start many jobs",
    description="Queues all of the jobs, or none of them if one is refused. What they have in "
    "common can stand in `template`, which each job completes or replaces key by key. Inputs that "
    "several jobs name are looked up once.",
    errors={
        400: "Job 'train_2': The input 'config/exp1' does not exist: config_id is relative to "
        "'config/'",
        409: "Job name must be unique: 'train_2'",
        413: "Job 'train_2': A job may have at most 10000 input files",
    },
    parameters=[KEY_PARAMETER],
    request_example=BATCH_REQUEST_EXAMPLE,
    response_example=BATCH_EXAMPLE,
    response_headers=REPLAYED_HEADER,
)
@headers_schema(IdempotencyKeySchema)
@json_schema(BatchRequestSchema)
@response_schema(BatchSchema, HTTPStatus.CREATED, description="The jobs and their batch.")
async def start_batch(request: web.Request) -> web.Response:
    wanted = request["json"]

    async def submit(claim: Claim | None) -> dict[str, Any]:
        return await request.app[BATCHES].submit(
            request[USER],
            wanted["jobs"],
            wanted["template"],
            correlation_id=request[REQUEST_ID],
            working=Work(request, "submission"),
            claim=claim,
        )

    return await created(request, submit)
