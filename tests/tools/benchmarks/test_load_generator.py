"""The load generator, and the reader that finds the end of a response."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.load_generator import Load, ResponseReader, UnexpectedResponse, drive
from benchmarks.messages import Endpoint

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n9;x=1\r\nd 0\r\n\r\ne!\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20, 1_000])
@pytest.mark.parametrize(
    ("response", "expected"),
    [(PLAIN, (200, b"hello")), (EMPTY, (204, b"")), (CHUNKED, (201, b"abcd 0\r\n\r\ne!"))],
)
def test_a_response_ends_with_its_last_byte(
    response: bytes, expected: tuple[int, bytes], size: int
) -> None:
    reader = ResponseReader()
    *early, last = (response[start : start + size] for start in range(0, len(response), size))
    assert [reader.feed(data) for data in early] == [None] * len(early)
    assert reader.feed(last) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_response_or_has_no_end_is_refused(wrong: bytes) -> None:
    with pytest.raises(UnexpectedResponse):
        ResponseReader().feed(wrong)


@pytest.fixture
def seen() -> Counter[str]:
    return Counter()


@pytest.fixture
async def endpoint(seen: Counter[str]) -> AsyncIterator[Endpoint]:
    async def respond(request: web.Request) -> web.StreamResponse:
        seen[request.path] += 1
        if request.path == "/wrong":
            return web.Response(status=500, text="it is broken")
        if request.path == "/stream":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"in chunks")
            return response
        return web.Response(text=request.path)

    app = web.Application()
    app.router.add_get("/{tail:.*}", respond)
    async with TestServer(app) as server:
        assert server.port
        yield Endpoint("127.0.0.1", server.port)


def load_of(endpoint: Endpoint, *targets: str, **changes: object) -> Load:
    requests = [endpoint.message("GET", target) for target in targets]
    return Load(endpoint, requests, **{"connections": 3, "seconds": 0.1, **changes})


async def test_every_request_is_counted(endpoint: Endpoint, seen: Counter[str]) -> None:
    sample = await drive(load_of(endpoint, "/a", "/b", "/stream"))
    assert sample.count == seen.total() == len(sample.latencies) > 0
    assert sample.seconds > 0
    assert max(seen.values()) - min(seen[path] for path in ("/a", "/b", "/stream")) <= 1


async def test_a_counter_never_repeats(endpoint: Endpoint, seen: Counter[str]) -> None:
    await drive(load_of(endpoint, "/@@@@@@@@@@"), first_number=41)
    assert set(seen.values()) == {1}
    assert "/0000000042" in seen


async def test_an_unexpected_status_ends_the_run_and_shows_the_response(endpoint: Endpoint) -> None:
    with pytest.raises(UnexpectedResponse, match=r"status 500 instead of 200.*it is broken"):
        await drive(load_of(endpoint, "/a", "/wrong"))


async def test_a_rate_bounds_the_requests(endpoint: Endpoint) -> None:
    sample = await drive(load_of(endpoint, "/a", rate=50.0, keep=True, seconds=0.2))
    assert 1 <= sample.count <= 11
    assert {text for _, text in sample.kept} == {"/a"}
