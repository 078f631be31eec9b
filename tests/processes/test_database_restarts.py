"""PostgreSQL disturbed under load, as the worker-facing API and users see it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from common.database.engine import Database
from common.database.tables import handover_numbers, handovers, jobs
from common.runtime.startup import wait_until_up
from devtools.postgres import OwnServer
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_own_server
from tests.support.dispatcher import FakePeer
from tests.support.records import add_job, all_done, rows


class Load:
    """Workers that report and users who submit while `going`."""

    def __init__(self, cloud: Cloud, dispatcher: Process) -> None:
        self._caller = cloud.caller
        self.dispatcher = dispatcher
        self.going = True
        self.reports: Counter[int | None] = Counter()
        self.submissions: Counter[int | None] = Counter()
        self.alive: Counter[int | None] = Counter()
        self.accepted: list[int] = []

    async def report(self, number: int) -> None:
        turn = 0
        while self.going:
            turn += 1
            status = ("running", "postprocessing")[turn % 2]
            self.reports[await self._caller.report(number, status)] += 1
            await asyncio.sleep(0.02)

    async def submit(self, user: int) -> None:
        turn = 0
        while self.going:
            turn += 1
            status, job_id = await self._caller.submit(f"job-{user}-{turn}")
            self.submissions[status] += 1
            if status == 201:
                self.accepted.append(job_id)
            await asyncio.sleep(0.02)

    async def watch(self, process: Process) -> None:
        while self.going:
            self.alive[await process.probe("/livez")] += 1
            await asyncio.sleep(0.1)

    async def goes_on(self) -> None:
        """Return once another thirty submissions have been accepted."""
        before = len(self.accepted)
        await eventually(lambda: len(self.accepted) > before + 30)


Disturbance = Callable[[OwnServer, Load], Awaitable[None]]


async def restart(server: OwnServer, load: Load) -> None:
    """Crash the server, and restart it once every client has noticed."""
    await asyncio.to_thread(server.stop)

    async def is_noticed() -> bool:
        refused = load.reports[503] > 0 and load.submissions[503] > 0
        return refused and await load.dispatcher.probe("/readyz") == 503

    await eventually(is_noticed, within=30)
    await asyncio.to_thread(server.start)


async def cut(server: OwnServer, load: Load) -> None:
    """Terminate every connection several times under load."""
    statement = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    for _ in range(4):
        await asyncio.to_thread(server.execute, statement)
        await load.goes_on()


@on_own_server
@pytest.mark.parametrize("disturb", [restart, cut])
async def test_a_disturbance_under_load_stops_no_worker_and_loses_nothing(
    cloud: Cloud, database: Database, server: OwnServer, peer: FakePeer, disturb: Disturbance
) -> None:
    running = [await add_job(database, status="running") for _ in range(4)]
    gateway, dispatcher = await cloud.gateway(), cloud.dispatcher()
    await dispatcher.wait_until_ready()
    load = Load(cloud, dispatcher)
    async with asyncio.TaskGroup() as group:
        for number in running:
            group.create_task(load.report(number))
        for user in range(3):
            group.create_task(load.submit(user))
        for process in (gateway, dispatcher):
            group.create_task(load.watch(process))
        await load.goes_on()
        await disturb(server, load)
        await load.goes_on()
        load.going = False

    assert set(load.reports) <= {200, 503}
    assert set(load.submissions) <= {201, 503}
    assert set(load.alive) == {200}
    await wait_until_up(database, 10.0)
    await eventually(lambda: all_done(database, handovers), within=30)
    await dispatcher.wait_until_ready()  # its last good tick is recent again
    there = {row["id"] for row in await rows(database, jobs)} - set(running)
    assert set(load.accepted) <= there
    # what was claimed as the connection broke is in doubt, and may come under a delivery number
    job_of = {row["number"]: row["job_id"] for row in await rows(database, handover_numbers)}
    assert {job_of.get(number, number) for number in peer.taken} == there
    assert len(peer.taken) == len(set(peer.taken)) <= len(there) + len(job_of)
