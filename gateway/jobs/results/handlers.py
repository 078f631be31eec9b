"""A job's results: its files, all of them as a zip, and the end of its log."""

from functools import partial
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import docs, match_info_schema, querystring_schema, response_schema

from common.storage.headers import CACHE_CONTROL
from gateway.http.admission import Work
from gateway.http.errors import Answer, ErrorTable
from gateway.http.keys import USER
from gateway.http.streaming import Content, send
from gateway.jobs.results.schemas import (
    ARCHIVE_RESPONSES,
    FILES_EXAMPLE,
    LOG_RESPONSES,
    FilesSchema,
    LogSchema,
)
from gateway.jobs.results.service import JobFiles, NoFilesYet, Results
from gateway.jobs.schemas import JobIdSchema
from gateway.trees.entries import FileSchema
from gateway.trees.zips import send_zip

RESULTS: Final = web.AppKey("results", Results)

ERRORS: Final[ErrorTable] = {
    NoFilesYet: Answer(HTTPStatus.NOT_FOUND, "The job has no files yet"),
}

_JSON: Final = {"Content-Type": "application/json"}
_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": CACHE_CONTROL}


async def _job(request: web.Request) -> JobFiles:
    return await request.app[RESULTS].of_job(request[USER], request["match_info"]["job_id"])


@docs(
    tags=["Jobs"],
    summary="List a job's files",
    description="All files of the job's output, log and artifact directories that exist, sorted by "
    "path.",
    errors={404: "Job not found"},
    response_example=FILES_EXAMPLE,
)
@match_info_schema(JobIdSchema)
@querystring_schema(FilesSchema)
@response_schema(FileSchema(many=True), HTTPStatus.OK, description="The files.")
async def list_job_files(request: web.Request) -> web.StreamResponse:
    job = await _job(request)
    async with Work(request, "listing") as slot:
        chunks = request.app[RESULTS].listing(job, **request["querystring"])
        return await send(request, Content(HTTPStatus.OK, _JSON, chunks), slot)


@docs(
    tags=["Jobs"],
    summary="Download a job's files",
    description="All files of the job as a zip, by kind of result.",
    errors={404: "The job has no files yet", 413: "A zip may hold at most 10000 files"},
    responses=ARCHIVE_RESPONSES,
)
@match_info_schema(JobIdSchema)
async def download_job_files(request: web.Request) -> web.StreamResponse:
    job = await _job(request)
    async with Work(request, "zip") as slot:
        packing, listing = await request.app[RESULTS].packing(job)
        return await send_zip(packing, listing, job.name, partial(send, request), slot)


@docs(
    tags=["Jobs"],
    summary="Read the end of a job's log",
    description="The last lines of each file in the job's log directory, the newest file last, "
    "each behind a line with its name where there are several, as `tail -n` shows them; where no "
    "file has any, the last lines of `runtime_details`. Of more than 100 files, the newest are "
    "shown; of a file, at most the last 4 MiB.",
    errors={404: "Job not found"},
    responses=LOG_RESPONSES,
)
@match_info_schema(JobIdSchema)
@querystring_schema(LogSchema)
async def tail_job_log(request: web.Request) -> web.StreamResponse:
    job = await _job(request)
    async with Work(request, "log_tail") as slot:
        chunks = request.app[RESULTS].log(job, **request["querystring"])
        return await send(request, Content(HTTPStatus.OK, _TEXT, chunks), slot)
