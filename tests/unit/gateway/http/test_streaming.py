"""What a response in chunks keeps in memory."""

import weakref

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.http.streaming import Chunks, Content, send

SIZE = 10_000


class Chunk(bytearray):
    """Bytes that weak references can name."""


async def test_a_chunk_is_freed_before_the_next_one_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "gateway.http.streaming.start_stream", lambda request, response: response.prepare(request)
    )
    kept: list[int] = []

    async def chunks() -> Chunks:
        yielded: list[weakref.ref[Chunk]] = []
        for _ in range(4):
            kept.append(sum(reference() is not None for reference in yielded))
            chunk = Chunk(SIZE)
            yielded.append(weakref.ref(chunk))
            yield chunk
            del chunk

    async def answer(request: web.Request) -> web.StreamResponse:
        return await send(request, Content(200, {}, chunks()))

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert len(await response.read()) == 4 * SIZE
    assert kept == [0, 0, 0, 0]
