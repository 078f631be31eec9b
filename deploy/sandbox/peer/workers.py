"""Routes for workers: pull, download, upload, report."""

from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

from deploy.sandbox.peer.files import MissingError, RefusedError
from deploy.sandbox.peer.queue import FINAL, STATUSES, Entry
from deploy.sandbox.peer.state import PEER, as_json

_LONGEST_WAIT = 30.0


def _problem(status: HTTPStatus, sentence: str) -> web.Response:
    return as_json({"detail": sentence}, status)


def _entry(request: web.Request) -> Entry:
    """The entry that is assigned to this worker. Raises `HTTPNotFound`, on which it stops."""
    queue = request.app[PEER].queue
    text, worker = request.match_info["entry"], request.query.get("worker", "")
    entry = queue.of_worker(int(text), worker) if text.isdecimal() else None
    if entry is None:
        raise web.HTTPNotFound(text='{"detail": "Not Found"}', content_type="application/json")
    return entry


async def pull(request: web.Request) -> web.Response:
    """POST /workers/{worker}/pull?wait=10&environment=local: 200 with a job, or 204."""
    try:
        wait = min(float(request.query.get("wait", 0)), _LONGEST_WAIT)
    except ValueError:
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "wait must be a number of seconds")
    entry = await request.app[PEER].queue.pull(
        request.match_info["worker"], request.query.get("environment"), wait=wait
    )
    if entry is None:
        return web.Response(status=HTTPStatus.NO_CONTENT)
    return as_json({"id": entry.id, **entry.submission})


async def download(request: web.Request) -> web.StreamResponse:
    """GET /entries/{entry}/input?worker=…&path=…: the input with that path in the mount."""
    peer, entry = request.app[PEER], _entry(request)
    uri = entry.submission["job"]["handler"]["files_down"].get(request.query.get("path", ""))
    if uri is None:
        return _problem(HTTPStatus.NOT_FOUND, "no such input")
    response = web.StreamResponse()
    try:
        async for chunk in peer.files.read(uri):
            if not response.prepared:
                await response.prepare(request)
            await response.write(chunk)
    except RefusedError as error:
        return _problem(HTTPStatus.FORBIDDEN, str(error))
    except MissingError:
        return _problem(HTTPStatus.NOT_FOUND, f"input file is gone: {uri}")
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


async def upload(request: web.Request) -> web.Response:
    """PUT /entries/{entry}/results/{kind}?worker=…&path=…: one result file."""
    peer, entry = request.app[PEER], _entry(request)
    folder = entry.submission["paths_upload"].get(request.match_info["kind"])
    if folder is None:
        return _problem(HTTPStatus.NOT_FOUND, "no such kind of result")
    try:
        await peer.files.write(
            folder, request.query.get("path", ""), request.content.iter_chunked(1 << 18)
        )
    except RefusedError as error:
        return _problem(HTTPStatus.FORBIDDEN, str(error))
    return web.Response(status=HTTPStatus.NO_CONTENT)


async def report(request: web.Request) -> web.Response:
    """PUT /entries/{entry}/status?worker=… {"status", "runtime_details"}.

    200 once the gateway has accepted it; 404 if the job is gone: the worker stops; 503 if the
    gateway did not accept it: the worker repeats.
    """
    peer, entry = request.app[PEER], _entry(request)
    body: Any = orjson.loads(await request.read() or b"null")
    status = body.get("status") if isinstance(body, dict) else None
    if status not in STATUSES:
        return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"no such status: {status!r}")
    answer = await peer.forward(entry, status, body.get("runtime_details"))
    if answer == HTTPStatus.NOT_FOUND:
        return _problem(HTTPStatus.NOT_FOUND, "Not Found")
    if answer != HTTPStatus.OK:
        sentence = f"the gateway returned {answer or 'nothing'}"
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
    if entry.worker != request.query.get("worker") and status not in FINAL:
        return _problem(HTTPStatus.NOT_FOUND, "Not Found")  # assigned to another worker meanwhile
    if status == "running" and not entry.ran:
        entry.ran = True
        peer.counters.run(entry.number, entry.name)
    if entry.status not in (status, "finished"):
        peer.queue.set_status(entry, status)
    return as_json(status)
