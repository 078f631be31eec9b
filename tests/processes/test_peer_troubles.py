"""A worker-facing API that is down for a while, and one that answers wrongly in every way."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers, jobs
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.records import add_handover, all_done, rows

BACKLOG = 150
DISPATCHERS = 2
AT_ONCE = 16
OUTAGE = 2.5

TROUBLES = ("drip", "hang", "garbage", "html", "redirect", "drop_before", "drop_after")
OTHERS = {f"job-{number}" for number in range(40)}
DEADLINE = 2.0


class Refuser:
    """A listener that aborts every connection, and records when."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def _abort(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.times.append(asyncio.get_running_loop().time())
        writer.transport.abort()

    @asynccontextmanager
    async def served(self, port: int) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._abort, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()


@on_postgresql
async def test_an_outage_of_the_peer_costs_few_calls_and_ends_with_a_quick_drain(
    cloud: Cloud, database: Database
) -> None:
    expected = [await add_handover(database) for _ in range(BACKLOG)]
    port, refuser = free_port(), Refuser()
    cloud.peer_url = f"http://127.0.0.1:{port}"
    async with refuser.served(port):
        for _ in range(DISPATCHERS):
            cloud.dispatcher(HANDOVER_CONCURRENCY=AT_ONCE)
        await eventually(lambda: refuser.times, within=30)
        await asyncio.sleep(OUTAGE)
        moments = [*refuser.times, asyncio.get_running_loop().time()]
    # the calls in flight when the first ones failed, then probes at growing intervals
    assert len(refuser.times) < DISPATCHERS * (AT_ONCE + 4 * OUTAGE)
    assert max(later - earlier for earlier, later in itertools.pairwise(moments)) < 5.5
    async with FakePeer().served(port) as peer:
        await eventually(lambda: all_done(database, handovers), within=30)
    job_of = {row["number"]: row["job_id"] for row in await rows(database, handover_numbers)}
    assert sorted(job_of.get(number, number) for number in peer.taken) == expected


def deliveries(dispatcher: Process) -> list[dict[str, Any]]:
    lines = (line for line in dispatcher.output.splitlines() if '"event":"handover.' in line)
    return [json.loads(line) for line in lines]


@on_postgresql
async def test_a_wrong_answer_delays_only_its_own_job(cloud: Cloud, database: Database) -> None:
    await cloud.gateway()
    async with cloud.standin_peer() as peer:
        peer.faults.replace(
            [{"fault": kind, "names": kind, "on": "submit", "times": 1} for kind in TROUBLES]
        )
        for name in (*TROUBLES, *OTHERS):
            assert (await cloud.caller.submit(name))[0] == 201
        dispatcher = cloud.dispatcher(HANDOVER_TIMEOUT=DEADLINE, HANDOVER_GRACE=60)
        # long before the troubled ones are sent again
        accepted = peer.counters.accepted_by_name
        await eventually(lambda: set(accepted) >= OTHERS, within=30)
        settled = len(TROUBLES) + len(OTHERS)
        await eventually(lambda: len(deliveries(dispatcher)) >= settled, within=30)
        assert {accepted[name] for name in OTHERS} == {1}
        # some of the answers would take for ever
        assert max(line["duration"] for line in deliveries(dispatcher)) < 5 * DEADLINE
        assert {row["status"] for row in await rows(database, jobs)} == {"queued"}
