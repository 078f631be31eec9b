"""A worker-facing API that is away for a while, and one that answers in every wrong way."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers, jobs
from devtools.postgres import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.conftest import settings_of
from tests.support.cloud import Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.gateway import INTERNAL_KEY
from tests.support.records import add_handover, rows

BACKLOG = 150
DISPATCHERS = 2
AT_ONCE = 16
OUTAGE = 6.0

TROUBLES = ("drip", "hang", "garbage", "html", "redirect", "drop_before", "drop_after")
OTHERS = 40
DEADLINE = 2.0


class Door:
    """An address at which every connection is slammed shut; when each came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def _slam(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.times.append(asyncio.get_running_loop().time())
        writer.transport.abort()

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._slam, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()


async def all_done(database: Database) -> bool:
    return {row["state"] for row in await rows(database, handovers)} == {"done"}


@on_postgresql
async def test_a_peer_that_returns_is_sent_everything_soon_after_few_tries_meanwhile(
    cloud: Cloud, database: Database
) -> None:
    expected = [await add_handover(database) for _ in range(BACKLOG)]
    port, door = free_port(), Door()
    cloud.peer_url = f"http://127.0.0.1:{port}"
    peer = FakePeer()
    peer.key = INTERNAL_KEY
    async with door.served(port):
        for _ in range(DISPATCHERS):
            cloud.dispatcher(HANDOVER_CONCURRENCY=AT_ONCE)
        await eventually(lambda: door.times)
        await asyncio.sleep(OUTAGE)
        moments = [*door.times, asyncio.get_running_loop().time()]
    # what was under way when the first calls failed, then probes at growing intervals
    assert len(door.times) < DISPATCHERS * (AT_ONCE + 4 * OUTAGE)
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 5.5
    async with peer.served(port):
        await eventually(lambda: all_done(database), within=20)
    job_of = {row["number"]: row["job_id"] for row in await rows(database, handover_numbers)}
    assert sorted(job_of.get(number, number) for number in peer.taken) == expected


def deliveries(dispatcher: Process) -> list[dict[str, Any]]:
    lines = (line for line in dispatcher.output.splitlines() if '"event":"handover.' in line)
    return [json.loads(line) for line in lines]


async def test_each_kind_of_wrong_answer_costs_its_own_job_alone_some_time(
    postgresql_cloud: Cloud,
) -> None:
    cloud = postgresql_cloud
    await cloud.gateway()
    async with cloud.standin_peer() as peer:
        peer.faults.replace(
            [{"fault": kind, "names": kind, "on": "submit", "times": 1} for kind in TROUBLES]
        )
        for name in (*TROUBLES, *(f"job-{number}" for number in range(OTHERS))):
            assert (await cloud.caller.submit(name))[0] == 201
        dispatcher = cloud.dispatcher(HANDOVER_TIMEOUT=DEADLINE, HANDOVER_GRACE=30)
        others = {f"job-{number}" for number in range(OTHERS)}
        # long before the troubled ones are sent again
        await eventually(lambda: others <= set(peer.counters.accepted_by_name), within=20)
        await eventually(lambda: len(deliveries(dispatcher)) >= len(TROUBLES) + OTHERS, within=20)
        assert all(peer.counters.accepted_by_name[name] == 1 for name in others)
        assert max(line["duration"] for line in deliveries(dispatcher)) < DEADLINE + 1.5
        database = Database(settings_of(cloud.database_url))
        assert {row["status"] for row in await rows(database, jobs)} == {"queued"}
        await database.close()
