"""`POST /jobs/{id}/repeat`."""

from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp_apispec import docs, headers_schema, json_schema, match_info_schema, response_schema

from common.jobs.answer import Job
from gateway.http.admission import Work
from gateway.http.keys import REQUEST_ID, USER
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.idempotency.handlers import created
from gateway.jobs.idempotency.schemas import KEY_PARAMETER, REPLAYED_HEADER, IdempotencyKeySchema
from gateway.jobs.repeat.service import Repeating
from gateway.jobs.schemas import JOB_EXAMPLE, JobIdSchema, JobPartsSchema, JobSchema

REPEATING: Final = web.AppKey("repeating", Repeating)

_REPEATED: Final[dict[str, Any]] = {
    **JOB_EXAMPLE,
    "id": 2,
    "job_name": "train_1-2",
    "priority": 3,
    "paths_out": {kind: f"{kind}/train_1-2" for kind in JOB_EXAMPLE["paths_out"]},
}
_ORIGINAL: Final = {"Link": 'The job that is repeated, such as `</jobs/1>; rel="original"`.'}


class RepeatSchema(JobPartsSchema):
    """What the new job has instead of the original's; objects are combined key by key."""

    may_be_missing = True

    def load(self, data: Any, **kwargs: Any) -> Any:
        """The body as it is, if it is an object: it is checked once it is combined."""
        return data if isinstance(data, dict) else super().load(data, **kwargs)


@docs(
    tags=["Jobs"],
    summary="Repeat a job",
    description="Queues a job like this one, labels included; the body replaces parts of its "
    "submission, objects key by key. Without a name, it gets the next one that is free: "
    "`train_1-2`, `train_1-3`. Inputs are looked up afresh; what is no longer possible is refused "
    "as by `POST /jobs`.",
    errors={
        400: "The input 'config/exp1' does not exist: config_id is relative to 'config/'",
        404: "Job not found",
        409: "Job name must be unique",
        413: "A job may have at most 10000 input files",
    },
    parameters=[KEY_PARAMETER],
    request_example={"priority": 3},
    response_example=_REPEATED,
    response_headers={**_ORIGINAL, **REPLAYED_HEADER},
)
@match_info_schema(JobIdSchema)
@headers_schema(IdempotencyKeySchema)
@json_schema(RepeatSchema)
@response_schema(JobSchema, HTTPStatus.CREATED, description="The new job.")
async def repeat_job(request: web.Request) -> web.Response:
    job_id = request["match_info"]["job_id"]

    async def repeat(claim: Claim | None) -> Job:
        return await request.app[REPEATING].repeat(
            request[USER],
            job_id,
            request["json"],
            correlation_id=request[REQUEST_ID],
            working=Work(request, "submission"),
            claim=claim,
        )

    return await created(request, repeat, {"Link": f'</jobs/{job_id}>; rel="original"'})
