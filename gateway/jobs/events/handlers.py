"""Events of jobs: a job's own, and the stream of all of a user's."""

from collections.abc import AsyncIterator
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

from gateway.http.keys import SHARES, USER
from gateway.http.limits import user_caller
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
from gateway.jobs.schemas import JobIdSchema
from gateway.metrics import STREAMS

EVENTS: Final = web.AppKey("events", Events)

_HEAD: Final = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
"""The second header asks proxies such as nginx not to collect the answer."""

_RECONNECT: Final = b"retry: 3000\n\n"
