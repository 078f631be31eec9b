"""Jobs that wait for days, and hour-long outages, simulated through the database's timestamps."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

from sqlalchemy import Table, update

from common.database.engine import Database, utc_now
from common.database.tables import emails, heartbeats, jobs
from common.jobs.heartbeat import GATEWAY, PEER
from deploy.sandbox.ports import free_port
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

Step = Callable[[], Awaitable[None]]


class Scene:
    """A service with a deep queue, parts of which can be away for an hour."""

    def __init__(self, cloud: Cloud, database: Database) -> None:
        self._cloud = cloud
        self._database = database
        self._peer = AsyncExitStack()
        self._peer_port = free_port()
        cloud.peer_url = f"http://127.0.0.1:{self._peer_port}"

    async def fill(self) -> None:
        long_ago = utc_now(-5 * DAY)
        for _ in range(DEEP):
            job_id = await add_job(self._database, date_created=long_ago, last_seen_at=long_ago)
            await add_handover(self._database, job_id, state="done", settled_at=long_ago)
        for _ in range(RUNNING):
            await add_job(self._database, status="running", last_seen_at=utc_now())

    async def start_peer(self) -> None:
        await self._peer.enter_async_context(FakePeer().served(self._peer_port))

    async def stop_peer(self) -> None:
        await self._peer.aclose()

    async def start_gateway(self) -> None:
        self.gateway = await self._cloud.gateway()

    async def kill_gateway(self) -> None:
        self.gateway.kill()

    async def start_dispatcher(self) -> None:
        self.dispatcher = self._cloud.dispatcher(**IMPATIENT)

    async def kill_dispatcher(self) -> None:
        self.dispatcher.kill()

    async def _write(self, table: Table, *conditions: object, **values: object) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(update(table).where(*conditions).values(values))

    async def all_was_well_for_long(self) -> None:
        """Every worker has just been heard, and no outage is remembered."""
        await self._write(jobs, jobs.c.status == "running", last_seen_at=utc_now())
        await self._write(heartbeats, outage_ended_at=utc_now(-30 * DAY))

    async def an_hour_passes(self, *, without: str = "") -> None:
        """No worker is heard for an hour, nor the part of the service that is out."""
        await self._write(heartbeats, heartbeats.c.name == without, last_at=utc_now(-HOUR))
        await asyncio.sleep(10 * SWEEP)  # time does not jump between two statements of a sweep
        await self._write(jobs, jobs.c.status == "running", last_seen_at=utc_now(-HOUR))

    async def outage(self, part: str, stop: Step, start: Step) -> None:
        """An hour without `part`, at whose end nothing has become of any job."""
        await self.all_was_well_for_long()
        await stop()
        await self.an_hour_passes(without=part)
        await asyncio.sleep(4 * SWEEP)
        await self.assert_nothing_happened()
        await start()

        async def has_ended() -> bool:
            beats = {row["name"]: row for row in await rows(self._database, heartbeats)}
            healthy_for = beats[part]["last_at"] - beats[part]["outage_ended_at"]
            return healthy_for < timedelta(minutes=30)

        await eventually(has_ended, within=30)
        await asyncio.sleep(4 * SWEEP)
        await self.assert_nothing_happened()

    async def all_beat(self) -> bool:
        return {row["name"] for row in await rows(self._database, heartbeats)} == {GATEWAY, PEER}

    async def has(self, **expected: int) -> bool:
        """Whether each status has this number of jobs."""
        return Counter(job["status"] for job in await rows(self._database, jobs)) == expected

    async def assert_nothing_happened(self) -> None:
        assert await self.has(queued=DEEP, running=RUNNING)
        assert await rows(self._database, emails) == []


@on_postgresql
async def test_neither_a_deep_queue_nor_an_hours_outage_makes_a_job_stalled(
    cloud: Cloud, database: Database, mailjet: FakeMailjet
) -> None:
    scene = Scene(cloud, database)
    await scene.fill()
    await scene.start_peer()
    await scene.start_gateway()
    await scene.start_dispatcher()
    cloud.notifier()
    await eventually(scene.all_beat, within=30)
    await scene.outage(GATEWAY, scene.kill_gateway, scene.start_gateway)
    await scene.outage(PEER, scene.stop_peer, scene.start_peer)
    await scene.outage(PEER, scene.kill_dispatcher, scene.start_dispatcher)
    assert mailjet.sent == []

    # the same hour, all being well: the jobs that a worker has are stalled, and no others
    await scene.all_was_well_for_long()
    await scene.an_hour_passes()
    await eventually(lambda: scene.has(queued=DEEP, error=RUNNING), within=30)
    await eventually(lambda: len(mailjet.sent) == RUNNING, within=30)
    await scene.stop_peer()
    assert await scene.has(queued=DEEP, error=RUNNING)
