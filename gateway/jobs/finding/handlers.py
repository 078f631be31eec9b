"""Finding jobs, and labelling them."""

from contextlib import nullcontext
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp_apispec import (
    docs,
    json_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from gateway.http.admission import Work
from gateway.http.keys import USER
from gateway.http.origin import next_link
from gateway.http.streaming import send_json
from gateway.jobs.finding.schemas import (
    DETAILED_EXAMPLE,
    DetailedJobSchema,
    FindSchema,
    LabelsSchema,
    search_of,
)
from gateway.jobs.finding.service import Finding, Wanted
from gateway.jobs.schemas import JOB_EXAMPLE, JobIdSchema

FINDING: Final = web.AppKey("finding", Finding)

_TOTAL: Final = "X-Total-Count"


@docs(
    tags=["Jobs"],
    summary="List jobs",
    description="The caller's jobs that match all filters, by default all of them, newest first, "
    "in this order over the whole set. An answer with more behind it names the next page in `Link` "
    '(`rel="next"`, with a `cursor`): such pages neither overlap nor skip, whatever is submitted '
    "or deleted meanwhile. An empty filter is none. `limit=0` gives no jobs and no next page.",
    response_headers={
        "Link": 'The next page: `<URL>; rel="next"`; absent on the last one.',
        _TOTAL: "How many jobs all pages hold, with `count=true`.",
    },
    response_example=[JOB_EXAMPLE],
)
@querystring_schema(FindSchema)
@response_schema(DetailedJobSchema(many=True), HTTPStatus.OK, description="The jobs.")
async def list_jobs(request: web.Request) -> web.StreamResponse:
    query = request["querystring"]
    search = search_of(query)
    wanted = Wanted(
        search=search,
        limit=query["limit"],
        offset=query["offset"],
        cursor=query.get("cursor"),
        details=query["details"],
        count=query["count"],
    )
    is_cheap = search.is_plain and not wanted.count
    async with nullcontext() if is_cheap else Work(request, "search"):
        found = await request.app[FINDING].page(request[USER], wanted)
    headers = {} if found.total is None else {_TOTAL: str(found.total)}
    if found.cursor is not None:
        headers[hdrs.LINK] = next_link(request, offset=None, cursor=found.cursor)
    return await send_json(request, found.body, headers=headers)


@docs(
    tags=["Jobs"],
    summary="Label a job",
    description="Replaces all labels of the job; `{}` removes them. This is no event.",
    errors={404: "Job not found"},
    request_example={"labels": {"exp": "7"}},
    response_example=DETAILED_EXAMPLE,
)
@match_info_schema(JobIdSchema)
@json_schema(LabelsSchema)
@response_schema(DetailedJobSchema, HTTPStatus.OK, description="The job, with details.")
async def label_job(request: web.Request) -> web.StreamResponse:
    job_id, labels = request["match_info"]["job_id"], request["json"]["labels"]
    return await send_json(
        request, await request.app[FINDING].relabel(request[USER], job_id, labels)
    )
