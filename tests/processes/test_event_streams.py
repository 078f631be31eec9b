"""Streams of events while gateways, writers and the database come and go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from common.database.engine import Database
from common.jobs.events import EventType, NewEvent, record_events
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.updates import apply_worker_report
from deploy.sandbox.ports import free_port
from devtools.event_source import EventSource
from devtools.postgres import OwnServer
from devtools.proc import cpu_seconds
from devtools.user_pool import USER
from devtools.waiting import eventually, meanwhile
from tests.support.clients import Client
from tests.support.cloud import Cloud, on_own_server, on_sqlite
from tests.support.slowness import slowness

STATUSES = ("running", "postprocessing")
DETAILS = "x" * 4_000
LARGE = 2_500
"""Events with those details: 10 MB, of which sockets hold a few."""


@asynccontextmanager
async def following(cloud: Cloud, count: int = 1) -> AsyncIterator[list[EventSource]]:
    """Open streams of the user's events."""
    headers = {"Authorization": f"Bearer {cloud.token}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sources = [EventSource(session, cloud.url, headers, pause=0.1) for _ in range(count)]
        async with meanwhile(*(source.run() for source in sources)):
            for source in sources:
                await asyncio.wait_for(source.is_open.wait(), 30)
            yield sources


async def check(cloud: Cloud, sources: list[EventSource], job_id: int) -> None:
    """Each stream gets the job's events, all and once."""

    async def listed() -> bytes:
        answer = await cloud.caller.ask("GET", f"/jobs/{job_id}/events?limit=10000")
        assert answer.status in {200, 503}  # while connections to the database are renewed
        return answer.body if answer.status == 200 else b""

    events: list[dict[str, Any]] = orjson.loads(await eventually(listed, within=30))

    def is_complete() -> bool:
        return all(source.last == events[-1]["id"] for source in sources)

    await eventually(is_complete, within=30)
    for source in sources:
        assert source.faults == []
        assert source.events == events


async def test_streams_of_a_killed_gateway_go_on_at_another_one(cloud: Cloud) -> None:
    first = await cloud.gateway()
    port = free_port()
    await cloud.gateway(PORT=port)
    async with following(cloud, 5) as sources:
        _, job_id = await cloud.caller.submit("train")
        await eventually(lambda: all(source.events for source in sources))
        for turn in range(20):
            assert await cloud.caller_at(port).report(job_id, STATUSES[turn % 2]) == 200
            if turn == 8:
                first.kill()
        await cloud.gateway()
        await check(cloud, sources, job_id)
        assert [source.connections for source in sources] == [2] * 5


@pytest.mark.parametrize("statement_cache", ["true", "false"])
async def test_what_a_killed_writer_did_not_announce_arrives_although_others_announce_all_the_time(
    cloud: Cloud, database: Database, statement_cache: str
) -> None:
    """Without the statement cache it is as behind a proxy that pools transactions."""
    await cloud.gateway(DATABASE_STATEMENT_CACHE=statement_cache)
    _, other = await cloud.caller_of("other").submit("theirs")

    async def announce() -> None:
        turn = 0
        while True:
            turn += 1
            assert await cloud.caller.report(other, STATUSES[turn % 2]) == 200
            await asyncio.sleep(0.1)

    async with following(cloud) as sources, meanwhile(announce()):
        _, job_id = await cloud.caller.submit("train")
        await eventually(lambda: sources[0].events)
        async with database.transaction() as tx:  # and no wake-up, as of a process that is killed
            report = Report(Status.RUNNING, None, Source.WORKER)
            assert await apply_worker_report(tx, job_id, report)
        await eventually(lambda: len(sources[0].events) == 2, within=30)
        await check(cloud, sources, job_id)


@on_own_server
async def test_streams_stay_open_while_postgresql_restarts_and_cost_nothing_meanwhile(
    cloud: Cloud, server: OwnServer
) -> None:
    gateway = await cloud.gateway()
    async with following(cloud, 5) as sources:
        _, job_id = await cloud.caller.submit("train")
        await eventually(lambda: all(source.events for source in sources))
        await asyncio.to_thread(server.stop)
        before, lines = cpu_seconds([gateway.pid]), gateway.output.count("\n")
        await asyncio.sleep(4)
        assert cpu_seconds([gateway.pid]) - before < 2 * slowness()  # of these four seconds
        assert gateway.output.count("\n") - lines < 40
        await asyncio.to_thread(server.start)
        for status in ("running", "finished"):

            async def is_reported(status: str = status) -> bool:
                return await cloud.caller.report(job_id, status) == 200

            await eventually(is_reported, within=30)
        await check(cloud, sources, job_id)
        assert [source.connections for source in sources] == [1] * 5


async def add_events(database: Database, job_id: int, count: int) -> None:
    event = NewEvent(
        job_id=job_id,
        user_id=USER,
        type=EventType.DETAILS,
        status=Status.RUNNING,
        source=Source.WORKER,
        details=DETAILS,
    )
    for _ in range(count // 100):
        async with database.transaction() as tx:
            await record_events(tx, [event] * 100)


async def read_events(client: Client, count: int) -> list[dict[str, Any]]:
    """The next events of a raw stream."""
    received, found, mark = bytearray(), 0, b"event: job\n"
    async with asyncio.timeout(60):
        while found < count:
            piece = await client.read()
            assert piece
            known = len(received)
            received += piece
            found += received.count(mark, max(0, known - len(mark) + 1))
        while not received.endswith(b"\n\n"):
            received += await client.read()
    lines = (line for line in received.split(b"\n") if line.startswith(b"data: "))
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines]


async def open_stream(cloud: Cloud) -> Client:
    """A client that has opened a stream, and reads no more."""
    client = Client(cloud.port, cloud.token)
    await client.connect()
    head = f"GET /jobs/events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {cloud.token}"
    await client.send(f"{head}\r\n\r\n".encode())
    assert b" 200 " in await client.read()
    return client


@on_sqlite
async def test_one_that_does_not_read_does_not_keep_a_gateway_from_ending(
    cloud: Cloud, database: Database
) -> None:
    gateway = await cloud.gateway(SHUTDOWN_GRACE=600)
    client = await open_stream(cloud)
    try:
        _, job_id = await cloud.caller.submit("train")
        async with following(cloud) as sources:
            await add_events(database, job_id, LARGE)
            await eventually(lambda: len(sources[0].events) == LARGE, within=60)
        assert await gateway.terminate() == 0  # within half a minute
        assert "requests.cut_short" not in gateway.output
    finally:
        client.close()


async def test_one_that_does_not_read_costs_little_memory_and_then_gets_everything(
    cloud: Cloud, database: Database
) -> None:
    gateway = await cloud.gateway()
    slow = [await open_stream(cloud) for _ in range(8)]
    try:
        before = gateway.memory
        _, job_id = await cloud.caller.submit("train")
        await add_events(database, job_id, LARGE)
        async with following(cloud) as sources:  # the feed has read on once this one has it
            _, other = await cloud.caller.submit("other")
            await eventually(lambda: sources[0].events, within=30)
        assert gateway.memory - before < 40
        found = await asyncio.gather(*(read_events(client, LARGE + 2) for client in slow))
    finally:
        for client in slow:
            client.close()
    for events in found:
        assert len(events) == LARGE + 2
        assert [event["job_id"] for event in events[-1:]] == [other]
        ids = [event["id"] for event in events]
        assert ids == sorted(set(ids))
