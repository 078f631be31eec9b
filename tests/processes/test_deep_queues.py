"""Jobs that wait for days, and outages of an hour, which the database's times play."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from sqlalchemy import update

from common.database.engine import Database, utc_now
from common.database.tables import emails, heartbeats, jobs
from common.jobs.heartbeat import GATEWAY, PEER
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.waiting import eventually
from tests.support.cloud import Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.notifier import FakeMailjet
from tests.support.records import add_handover, add_job, rows

DAY, HOUR = 86_400.0, 3_600.0
DEEP = 30
RUNNING = 10
SWEEP = 0.1

IMPATIENT = {
    "SILENCE_DEFAULT_TIMEOUT": HOUR / 2,
    "SILENCE_MARGIN": 60,
    "RECONCILE_INTERVAL": SWEEP,
}

_of_running_jobs = update(jobs).where(jobs.c.status == "running")


class Clock:
    """Lets time pass in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def has_been_well_for_long(self) -> None:
        """No outage is remembered but those to come."""
        async with self._database.transaction() as tx:
            await tx.execute(update(heartbeats).values(outage_ended_at=utc_now(-30 * DAY)))

    async def pass_without(self, *silent: str) -> None:
        """An hour in which no worker was heard, and these parts of the service were out."""
        async with self._database.transaction() as tx:
            await tx.execute(
                update(heartbeats)
                .where(heartbeats.c.name.in_(silent))
                .values(last_at=utc_now(-HOUR))
            )
        await asyncio.sleep(3 * SWEEP)  # time does not jump between two statements of a sweep
        async with self._database.transaction() as tx:
            await tx.execute(_of_running_jobs.values(last_seen_at=utc_now(-HOUR)))

    async def outage_has_ended(self, name: str) -> bool:
        for row in await rows(self._database, heartbeats):
            if row["name"] == name:
                return bool(row["outage_ended_at"] == row["last_at"])
        return False

    async def all_beat(self) -> bool:
        return {row["name"] for row in await rows(self._database, heartbeats)} == {GATEWAY, PEER}


class Scene:
    """A service with a deep queue, whose parts can be taken away for an hour."""

    def __init__(self, cloud: Cloud, database: Database) -> None:
        self._cloud = cloud
        self._peer = AsyncExitStack()
        self._peer_port = free_port()
        self._processes: dict[str, Process] = {}
        self.database = database
        self.clock = Clock(database)
        cloud.peer_url = f"http://127.0.0.1:{self._peer_port}"

    async def start_peer(self) -> None:
        await self._peer.enter_async_context(FakePeer().served(self._peer_port))

    async def stop_peer(self) -> None:
        await self._peer.aclose()

    async def start_gateway(self) -> None:
        self._processes["gateway"] = await self._cloud.gateway()

    async def stop_gateway(self) -> None:
        self._processes["gateway"].kill()

    async def start_dispatcher(self) -> None:
        self._processes["dispatcher"] = self._cloud.dispatcher(**IMPATIENT)

    async def stop_dispatcher(self) -> None:
        self._processes["dispatcher"].kill()

    async def fill(self) -> None:
        for _ in range(DEEP):
            job_id = await add_job(
                self.database, date_created=utc_now(-5 * DAY), last_seen_at=utc_now(-5 * DAY)
            )
            await add_handover(self.database, job_id, state="done", settled_at=utc_now(-5 * DAY))
        for _ in range(RUNNING):
            await add_job(self.database, status="running", last_seen_at=utc_now())

    async def hear_workers(self) -> None:
        async with self.database.transaction() as tx:
            await tx.execute(_of_running_jobs.values(last_seen_at=utc_now()))

    async def statuses(self) -> Counter[str]:
        return Counter(job["status"] for job in await rows(self.database, jobs))

    async def assert_nothing_happened(self) -> None:
        assert await self.statuses() == {"queued": DEEP, "running": RUNNING}
        assert await rows(self.database, emails) == []

    async def outage(
        self,
        part: str,
        stop: Callable[[], Awaitable[None]],
        start: Callable[[], Awaitable[None]],
    ) -> None:
        """An hour without `part`, after a long time in which all was well."""
        await self.hear_workers()
        await self.clock.has_been_well_for_long()
        await stop()
        await self.clock.pass_without(part)
        await asyncio.sleep(4 * SWEEP)
        await self.assert_nothing_happened()
        await start()
        await eventually(lambda: self.clock.outage_has_ended(part))
        await asyncio.sleep(6 * SWEEP)
        await self.assert_nothing_happened()


@on_postgresql
async def test_neither_a_deep_queue_nor_an_hours_outage_makes_a_job_silent(
    cloud: Cloud, database: Database, mailjet: FakeMailjet
) -> None:
    scene = Scene(cloud, database)
    await scene.fill()
    await scene.start_peer()
    await scene.start_gateway()
    await scene.start_dispatcher()
    cloud.notifier()
    await eventually(scene.clock.all_beat)
    await scene.clock.has_been_well_for_long()
    await scene.outage(GATEWAY, scene.stop_gateway, scene.start_gateway)
    await scene.outage(PEER, scene.stop_peer, scene.start_peer)
    await scene.outage(PEER, scene.stop_dispatcher, scene.start_dispatcher)
    assert mailjet.sent == []

    # the same hour, all being well: those that a worker has are silent, and no other
    await scene.hear_workers()
    await scene.clock.has_been_well_for_long()
    await scene.clock.pass_without()
    expected = {"queued": DEEP, "error": RUNNING}

    async def are_silent() -> bool:
        return await scene.statuses() == expected

    await eventually(are_silent)
    await eventually(lambda: len(mailjet.sent) == RUNNING, within=30)
    await scene.stop_peer()
    assert await scene.statuses() == expected
