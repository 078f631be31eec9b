"""`/user/usage`."""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp_apispec import docs, response_schema
from marshmallow import Schema, fields

from gateway.http.keys import STANDING, USER
from gateway.http.responses import json_response
from gateway.usage.service import UserUsage

USAGE: Final = web.AppKey("usage", UserUsage)

_LIMIT: Final = "null: no limit."


class UnfinishedJobsSchema(Schema):
    """Jobs that have not ended."""

    unfinished = fields.Integer()
    limit = fields.Integer(
        allow_none=True, metadata={"description": f"Most that may be unfinished; {_LIMIT}"}
    )


class StoredBytesSchema(Schema):
    """Size of the caller's files in bytes, results of jobs included."""

    used = fields.Integer()
    limit = fields.Integer(
        allow_none=True, metadata={"description": f"Most that may be used; {_LIMIT}"}
    )
    measured_at = fields.String(
        allow_none=True,
        metadata={
            "description": "When the files were last measured: what workers and presigned uploads "
            "wrote by then is part of `used`, as is all that came through this API since. UTC, "
            "ISO 8601; null: not yet, `used` holds what came through this API only."
        },
    )


class RequestsSchema(Schema):
    """Requests in the current window."""

    limit = fields.Integer(metadata={"description": "Requests in one window."})
    window = fields.Integer(metadata={"description": "Its length in seconds."})
    remaining = fields.Integer(metadata={"description": "Requests left in the current one."})


class UsageSchema(Schema):
    """What the caller has in use."""

    jobs = fields.Nested(UnfinishedJobsSchema)
    bytes = fields.Nested(StoredBytesSchema)
    requests = fields.Nested(
        RequestsSchema, allow_none=True, metadata={"description": "null: no limit on them."}
    )


_EXAMPLE: Final = {
    "jobs": {"unfinished": 3, "limit": None},
    "bytes": {"used": 123, "limit": None, "measured_at": "2026-01-01T12:00:00.123456"},
    "requests": {"limit": 600, "window": 60, "remaining": 599},
}


@docs(
    tags=["Account"],
    summary="What I have in use",
    description="Unfinished jobs, bytes of files, and requests, each with its limit. `bytes.used` "
    "follows uploads, renames and deletions through this API within seconds, and what workers and "
    "presigned uploads write within minutes.",
    response_example=_EXAMPLE,
)
@response_schema(UsageSchema, HTTPStatus.OK, description="Usage and limits.")
async def user_usage(request: web.Request) -> web.Response:
    standing = request.get(STANDING)
    return json_response(await request.app[USAGE].describe(request[USER].id, standing))
