"""What the fake peers have in common."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer


@asynccontextmanager
async def serving(routes: Iterable[web.RouteDef], port: int | None = None) -> AsyncIterator[str]:
    """Serve the routes on loopback; gives the address."""
    app = web.Application(client_max_size=1 << 28)
    app.add_routes(routes)
    async with TestServer(app, port=port) as server:
        yield str(server.make_url("")).rstrip("/")


def abort(request: web.Request) -> web.StreamResponse:
    """Break the connection off instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
