"""Routes for the dispatcher: submissions, a job's status, the public description."""

import hmac
from typing import Any, Final

import orjson
from aiohttp import web

from deploy.sandbox.faults import misbehave
from deploy.sandbox.peer.queue import job_name
from deploy.sandbox.peer.state import PEER, Peer, as_json

_UPLOADS: Final = ("output", "log", "artifact")


class SubmissionError(Exception):
    """The body is no job; `loc` and the message say where and why."""

    def __init__(self, loc: list[str], message: str, kind: str = "value_error") -> None:
        super().__init__(message)
        self.detail = [{"loc": ["body", *loc], "msg": message, "type": kind}]


async def submit(request: web.Request) -> web.StreamResponse:
    """POST /_jobs: commits, then responds, one at a time; does not detect duplicates."""
    peer = request.app[PEER]
    peer.counters.connection(request)
    if refusal := _refusal_of_key(request, peer):
        return refusal
    raw = await request.read()
    try:
        submission = parse_submission(raw)
    except SubmissionError as error:
        peer.counters.refused += 1
        return as_json({"detail": error.detail}, 422)
    number, name = submission["job"]["meta"]["job_id"], job_name(submission)
    peer.counters.submission(number, name, request.headers.get("X-Request-ID", ""))

    async def commit() -> web.Response:
        peer.queue.add(submission)
        peer.counters.acceptance(number, name)
        return web.Response(body=raw, status=201, content_type="application/json")

    async def commit_in_turn() -> web.Response:
        async with peer.one_at_a_time:
            return await commit()

    rule = peer.faults.take("submit", number=number, names=[name])
    if rule is None:
        return await commit_in_turn()
    if not rule.holds_up_others:
        return await misbehave(request, rule, commit_in_turn)
    async with peer.one_at_a_time:
        return await misbehave(request, rule, commit)


def parse_submission(raw: bytes) -> dict[str, Any]:
    """Parse the body of POST /_jobs as far as the peer uses it. Raises `SubmissionError`."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise SubmissionError([], f"JSON decode error: {error}", "json_invalid") from error
    job = _object(body, "job")
    app, handler, meta = (_object(job, key, "job") for key in ("app", "handler", "meta"))
    command = app.get("cmd")
    if not isinstance(command, list) or not all(isinstance(item, str) for item in command):
        raise SubmissionError(["job", "app", "cmd"], "Input should be a list of strings")
    if type(meta.get("job_id")) is not int:
        raise SubmissionError(["job", "meta", "job_id"], "Input should be an integer", "int_type")
    if type(body.get("priority", 0)) is not int:
        raise SubmissionError(["priority"], "Input should be an integer", "int_type")
    if body.get("environment") not in (None, "cloud", "local"):
        raise SubmissionError(["environment"], "Input should be 'cloud' or 'local'", "enum")
    _texts(_object(handler, "files_down", "job", "handler"), "job", "handler", "files_down")
    _texts(_object(handler, "files_up", "job", "handler"), "job", "handler", "files_up")
    uploads = _object(body, "paths_upload")
    for kind in _UPLOADS:
        if not isinstance(uploads.get(kind), str):
            raise SubmissionError(["paths_upload", kind], "Field required", "missing")
    return dict(body)


def _object(holder: Any, key: str, *loc: str) -> dict[str, Any]:
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, dict):
        raise SubmissionError([*loc, key], "Field required", "missing")
    return value


def _texts(mapping: dict[str, Any], *loc: str) -> None:
    for key, value in mapping.items():
        if not isinstance(value, str):
            raise SubmissionError([*loc, key], "Input should be a valid string", "string_type")


def _refusal_of_key(request: web.Request, peer: Peer) -> web.Response | None:
    given = request.headers.get("x-api-key")
    if given is None:
        fault = {"loc": ["header", "x-api-key"], "msg": "Field required", "type": "missing"}
        return as_json({"detail": [fault]}, 422)
    if not hmac.compare_digest(given.encode(), peer.settings.key.encode()):
        return as_json({"detail": "unauthorized"}, 401)
    return None


async def question(request: web.Request) -> web.StreamResponse:
    """GET /_jobs/{job_id}/status, if enabled."""
    peer = request.app[PEER]
    peer.counters.connection(request)
    if not peer.can_be_asked:
        return as_json({"detail": "Not Found"}, 404)
    if refusal := _refusal_of_key(request, peer):
        return refusal

    async def answer() -> web.Response:
        text = request.match_info["job_id"]
        entry = peer.queue.find_number(int(text)) if text.isdecimal() else None
        return as_json({"detail": "Not Found"}, 404) if entry is None else as_json(entry.status)

    number = request.match_info["job_id"]
    rule = peer.faults.take("question", number=int(number) if number.isdecimal() else None)
    return await answer() if rule is None else await misbehave(request, rule, answer)


async def openapi(request: web.Request) -> web.StreamResponse:
    """GET /openapi.json: public, for probes without a key."""
    peer = request.app[PEER]
    peer.counters.connection(request)
    peer.counters.probes += 1

    async def answer() -> web.Response:
        return as_json(
            {
                "openapi": "3.1.0",
                "info": {"title": "Stand-in worker-facing API", "version": "1.0.0"},
                "paths": {"/_jobs": {"post": {"responses": {"201": {"description": "taken"}}}}},
            }
        )

    rule = peer.faults.take("openapi")
    return await answer() if rule is None else await misbehave(request, rule, answer)
