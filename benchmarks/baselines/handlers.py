"""Bare aiohttp handlers on uvloop: `python -m benchmarks.baselines.handlers PORT FOLDER`."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

import uvloop
from aiohttp import web

from deploy.sandbox.ports import LOOPBACK

_CHUNK: Final = 65_536
_HEADERS: Final = {"Content-Type": "application/json"}


@lru_cache(maxsize=64)
def _body(size: int) -> bytes:
    return b'"' + b"x" * max(0, size - 2) + b'"'


async def _respond(request: web.Request) -> web.Response:
    """Read the body, if any, and respond with as many bytes as the path says."""
    if request.body_exists:
        await request.read()
    return web.Response(body=_body(int(request.match_info["size"])), headers=_HEADERS)


async def _discard(request: web.Request) -> web.Response:
    async for _ in request.content.iter_chunked(_CHUNK):
        pass
    return web.Response(body=b"{}", headers=_HEADERS)


def create_app(folder: Path) -> web.Application:
    async def send(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.router.add_route("*", "/bytes/{size}", _respond)
    app.router.add_post("/discard", _discard)
    app.router.add_get("/file/{name}", send)
    return app


if __name__ == "__main__":
    web.run_app(
        create_app(Path(sys.argv[2])), host=LOOPBACK, port=int(sys.argv[1]),
        loop=uvloop.new_event_loop(), access_log=None, print=None,
    )  # fmt: skip
