"""The floor for requests and transfers: bare aiohttp handlers on uvloop, a process of their own.

`python -m benchmarks.bare --port 1234 --folder DIRECTORY`
"""

import argparse
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


async def _answer(request: web.Request) -> web.Response:
    """Read the body, if there is one, and answer so many bytes."""
    if request.body_exists:
        await request.read()
    return web.Response(body=_body(int(request.match_info["size"])), headers=_HEADERS)


async def _discard(request: web.Request) -> web.Response:
    """Read a body of any size, and forget it."""
    async for _ in request.content.iter_chunked(_CHUNK):
        pass
    return web.Response(body=b"{}", headers=_HEADERS)


def create_app(folder: Path) -> web.Application:
    async def send(request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / request.match_info["name"])

    app = web.Application()
    app.router.add_route("*", "/bytes/{size}", _answer)
    app.router.add_post("/discard", _discard)
    app.router.add_get("/file/{name}", send)
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    web.run_app(
        create_app(arguments.folder),
        host=LOOPBACK,
        port=arguments.port,
        loop=uvloop.new_event_loop(),
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
