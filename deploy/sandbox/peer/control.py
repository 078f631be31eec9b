"""Fault switches and counters for tests and benchmarks."""

import orjson
from aiohttp import web

from deploy.sandbox.faults import FaultError
from deploy.sandbox.peer.state import PEER, Peer, as_json


def _switches(peer: Peer) -> web.Response:
    return as_json({"rules": peer.faults.as_json(), "can_be_asked": peer.can_be_asked})


async def get_faults(request: web.Request) -> web.Response:
    return _switches(request.app[PEER])


async def put_faults(request: web.Request) -> web.Response:
    """PUT /_faults {"rules": [...], "can_be_asked": true}: a missing key changes nothing."""
    peer = request.app[PEER]
    try:
        body = peer.faults.switch(orjson.loads(await request.read()), "can_be_asked")
    except (orjson.JSONDecodeError, FaultError) as error:
        return as_json({"detail": str(error)}, 422)
    peer.can_be_asked = bool(body.get("can_be_asked", peer.can_be_asked))
    return _switches(peer)


async def delete_faults(request: web.Request) -> web.Response:
    peer = request.app[PEER]
    peer.faults.replace([])
    peer.can_be_asked = peer.settings.can_be_asked
    return _switches(peer)


async def get_counters(request: web.Request) -> web.Response:
    return as_json(request.app[PEER].counters.as_json())


async def delete_counters(request: web.Request) -> web.Response:
    request.app[PEER].counters.reset()
    return web.Response(status=204)


async def get_arrivals(request: web.Request) -> web.Response:
    """GET /_arrivals: [number, job name, Unix time, X-Request-ID] of each submission."""
    return as_json(request.app[PEER].counters.arrivals)


async def get_queue(request: web.Request) -> web.Response:
    return as_json([entry.as_json() for entry in request.app[PEER].queue])
