"""Events of jobs: a job's own, and the stream of all of a user's."""

from contextlib import aclosing
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import (
    docs,
    headers_schema,
    match_info_schema,
    querystring_schema,
    response_schema,
)

from gateway.http.admission import Work
from gateway.http.keys import USER
from gateway.http.middlewares import start_stream
from gateway.http.responses import json_response
from gateway.jobs.events.schemas import (
    EVENT_EXAMPLE,
    EventSchema,
    EventsQuerySchema,
    LastEventIdSchema,
    StreamQuerySchema,
)
from gateway.jobs.events.service import Events, Filter
from gateway.jobs.labels import parse_label
from gateway.jobs.schemas import JobIdSchema
from gateway.metrics import STREAMS

EVENTS: Final = web.AppKey("events", Events)

_STREAM: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
"""The last header asks proxies such as nginx not to buffer the answer."""

_STREAM_EXAMPLE: Final = (
    'retry: 3000\n\nid: 17\nevent: job\ndata: {"id": 17, "job_id": 1, "type": "status", …}\n\n'
)


@docs(
    tags=["Jobs"],
    summary="List a job's events",
    description="What happened to the job, oldest first. Keep-alives of workers are no events.",
    errors={404: "Job not found"},
    response_example=[EVENT_EXAMPLE],
)
@match_info_schema(JobIdSchema)
@querystring_schema(EventsQuerySchema)
@response_schema(EventSchema(many=True), HTTPStatus.OK, description="The events.")
async def list_events(request: web.Request) -> web.Response:
    page = request["querystring"]
    found = await request.app[EVENTS].of_job(
        request[USER],
        request["match_info"]["job_id"],
        after=page["after"],
        limit=page["limit"],
    )
    return json_response(found)


@docs(
    tags=["Jobs"],
    summary="Follow all jobs",
    description="Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html"
    ") of all of the caller's jobs. With `Last-Event-ID` or `after`: first everything later than "
    "that, without a gap or a repetition; without either: from now on. The deletion of a job is "
    "`event: deleted` with the job's id, sent once and never replayed. At most ten streams at once "
    "per user; they do not count as requests under way.",
    parameters=[
        {
            "in": "header",
            "name": "Last-Event-ID",
            "schema": {"type": "integer", "minimum": 0},
            "description": "Sent by browsers when they reconnect; takes precedence over `after`.",
        }
    ],
    responses={
        "200": {
            "description": "The events, until the client closes the connection.",
            "content": {
                "text/event-stream": {"schema": {"type": "string"}, "example": _STREAM_EXAMPLE}
            },
        }
    },
)
@querystring_schema(StreamQuerySchema)
@headers_schema(LastEventIdSchema)
async def stream_events(request: web.Request) -> web.StreamResponse:
    query, last = request["querystring"], request["headers"].get("last_event_id")
    wanted = Filter(frozenset(query["job"]), tuple(parse_label(label) for label in query["label"]))
    events = request.app[EVENTS]
    frames = events.stream(
        request[USER], wanted, after=query.get("after") if last is None else last
    )
    async with Work(request, "event_stream"), aclosing(frames):
        first = await anext(frames)  # a refusal comes before the head
        response = web.StreamResponse(headers=_STREAM)
        await start_stream(request, response)
        with STREAMS.track_inprogress():
            async with events.writing():
                await response.write(first)
                async for frame in frames:
                    await response.write(frame)
                await response.write_eof()
    return response
