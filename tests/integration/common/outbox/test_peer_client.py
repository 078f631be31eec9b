import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from common.outbox.peer_client import (
    Lost,
    Reply,
    Unreachable,
    exchange,
    open_session,
    parse_retry_after,
)
from deploy.sandbox.ports import free_port


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with open_session("tests", connections=4) as session:
        yield session


async def call(session: ClientSession, handler: Any, **options: Any) -> Any:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/", handler)
    async with TestServer(app) as server:
        options = {"deadline": 60.0, "limit": 1_000_000, **options}
        return await exchange(session, "POST", str(server.make_url("/")), **options)


async def test_a_whole_answer_is_a_reply(session: ClientSession) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"got": len(await request.read())}, status=201)

    outcome = await call(session, handler, body=b"x" * 5_000_000)
    assert outcome == Reply(201, "application/json", b'{"got": 5000000}')


async def test_redirects_are_not_followed_and_long_answers_not_read_to_their_end(
    session: ClientSession,
) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "/elsewhere"}, body=b"x" * 10_000)

    assert (await call(session, handler)).status == 307
    assert isinstance(await call(session, handler, limit=1_000), Lost)


async def test_without_a_listener_nothing_was_sent(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    for host in (f"127.0.0.1:{free_port()}", "no-such-host.invalid"):
        outcome = await exchange(session, "POST", f"http://{host}/", deadline=60.0, limit=100)
        assert isinstance(outcome, Unreachable)


@pytest.mark.parametrize("moment", ["before the answer", "during the answer"])
async def test_a_connection_that_breaks_is_a_lost_answer(
    session: ClientSession, moment: str
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        if moment == "during the answer":
            await response.prepare(request)
            await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    assert isinstance(await call(session, handler), Lost)


async def test_the_deadline_is_for_all_of_it(session: ClientSession) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.1)

    async with asyncio.timeout(60.0):
        outcome = await call(session, handler, deadline=1.0)
    assert outcome == Lost("no answer within 1 s", timed_out=True)


async def test_what_is_no_http_is_a_lost_answer(session: ClientSession) -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\x00\x01garbage\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    outcome = await exchange(session, "POST", url, deadline=60.0, limit=100)
    assert isinstance(outcome, Lost)
    assert not outcome.timed_out
    server.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("86400", 60.0),
        ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 60.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("soon", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    value: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(value) == seconds
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    assert 10.0 < (parse_retry_after(soon) or 0.0) <= 50.0
