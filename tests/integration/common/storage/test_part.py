"""The body of an upload to S3: to botocore a file, to aiohttp a payload that can be sent again."""

import io
import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.storage.paths import UserPath
from common.storage.s3.part import Part
from common.storage.s3.storage import S3Storage
from tests.integration.common.storage.conftest import CREDENTIALS, REGION, stream

CHUNKS = [bytes([number]) * size for number, size in enumerate((70_000, 1, 2, 40_000, 0, 9))]
WHOLE = b"".join(CHUNKS)


@pytest.fixture
def refusals() -> list[int]:
    """The statuses with which the store answers before it takes anything."""
    return []


@pytest.fixture
async def store(
    refusals: list[int], session: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """A store that holds one object, and the bodies that were sent to it."""
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        if request.method == "HEAD":
            return web.Response(status=404 if request.path.count("/") > 1 else 200)
        if request.method != "PUT":
            return web.Response(text="<ListBucketResult/>", content_type="application/xml")
        bodies.append(await request.read())
        if refusals:
            status = refusals.pop()
            return web.Response(status=status, headers={"Location": f"{request.path}.elsewhere"})
        return web.Response(headers={"ETag": '"tag"'})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    monkeypatch.setattr("common.storage.s3.client.get_session", lambda: session)
    async with TestServer(app) as server:
        endpoint = str(server.make_url("")).rstrip("/")
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        async with S3Storage("bucket", region=REGION) as storage:
            yield SimpleNamespace(storage=storage, bodies=bodies)


@pytest.mark.parametrize("refused", [[], [503], [503, 500], [307]])
async def test_every_attempt_sends_the_whole_part(
    store: Any, refusals: list[int], refused: list[int]
) -> None:
    refusals += refused
    entry = await store.storage.write(UserPath.parse("user", "a.bin"), stream(*CHUNKS))
    assert (entry.size, entry.etag) == (len(WHOLE), "tag")
    assert store.bodies == [WHOLE] * (len(refused) + 1)


def test_a_part_reads_as_a_file_does() -> None:
    part, file = Part(*CHUNKS), io.BytesIO(WHOLE)
    for steps in (
        lambda f: (f.read(5), f.tell(), f.read(70_000), f.read(), f.read(1), f.tell()),
        lambda f: (f.seek(0, os.SEEK_END), f.tell(), f.read()),
        lambda f: (f.seek(3), f.seek(4, os.SEEK_CUR), f.read(2), f.seek(0)),
    ):
        assert steps(part) == steps(file)


def test_small_chunks_are_joined() -> None:
    part = Part(*[b"x"] * 100_000)
    assert part.size == 100_000
    assert len(part._chunks) < 5
