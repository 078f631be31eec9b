"""A rolling restart of all services under traffic."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, jobs
from deploy.sandbox.ports import free_port
from devtools.front import Front
from devtools.services import Process
from devtools.waiting import eventually, meanwhile
from tests.support.cloud import USER, Cloud, on_postgresql
from tests.support.dispatcher import FakePeer
from tests.support.following import Following
from tests.support.notifier import FakeMailjet
from tests.support.records import all_done, rows
from tests.support.traffic import Traffic

WORKERS = 6
EACH = 2
"""Processes of each service."""

FOLLOWERS = 10
STREAMS = 10
POLLS = 20
"""Users, the streams of each, and the jobs that one of them waits for at a time."""

DRAIN_DELAY = 4.0
LATENCY = 0.2
"""Seconds until proxies know which gateways are ready: less than a gateway waits."""

OWN = {
    "DATABASE_POOL_SIZE": 5,
    "DRAIN_DELAY": DRAIN_DELAY,
    "SHUTDOWN_GRACE": 60,
    "HANDOVER_TIMEOUT": 20,
    "EMAIL_TIMEOUT": 20,
}


class Service:
    """Gateways behind two load balancers, which notice readiness `LATENCY` seconds late."""

    def __init__(self, cloud: Cloud) -> None:
        self.running: list[Process] = []
        self.public, self.internal = Front(), Front()
        self.port, self.internal_port = free_port(), free_port()
        self._cloud = cloud
        self._ports: dict[Process, tuple[int, int]] = {}

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        async with (
            self.public.served(self.port),
            self.internal.served(self.internal_port),
            meanwhile(self._watch()),
        ):
            yield

    async def _watch(self) -> None:
        while True:
            known = list(self._ports.items())
            answers = await asyncio.gather(*(process.probe("/readyz") for process, _ in known))
            await asyncio.sleep(LATENCY)
            ready = [
                ports for (_, ports), status in zip(known, answers, strict=True) if status == 200
            ]
            self.public.ports = [port for port, _ in ready]
            self.internal.ports = [port for _, port in ready]

    async def start(self) -> Process:
        """One more gateway, which gets requests when this returns."""
        port, internal = free_port(), free_port()
        process = await self._cloud.gateway(PORT=port, INTERNAL_PORT=internal, **OWN)
        self._ports[process] = (port, internal)
        await eventually(lambda: port in self.public.ports, within=30)
        return process


async def roll(running: list[Process], start: Callable[[], Awaitable[Process]]) -> list[int]:
    """Replace each: the new one is ready before the old one ends. Returns the exit statuses."""
    statuses = []
    for old in list(running):
        running.append(await start())
        running.remove(old)
        statuses.append(await old.terminate())
    return statuses


@on_postgresql
async def test_nobody_notices_that_every_process_is_replaced(
    cloud: Cloud, database: Database, peer: FakePeer, mailjet: FakeMailjet
) -> None:
    service = Service(cloud)
    traffic = Traffic(
        f"http://127.0.0.1:{service.port}",
        f"http://127.0.0.1:{service.internal_port}",
        cloud.token,
        cloud.root / USER,
    )
    following = Following(
        f"http://127.0.0.1:{service.port}",
        [cloud.token_of(f"follower-{number}") for number in range(FOLLOWERS)],
        streams=STREAMS,
        polls=POLLS,
    )
    starts = [
        service.start,
        lambda: cloud.dispatcher(**OWN).wait_until_ready(),
        lambda: cloud.notifier(**OWN).wait_until_ready(),
    ]
    async with service.served():
        kinds = [await asyncio.gather(*(start() for _ in range(EACH))) for start in starts]
        async with meanwhile(*(traffic.work(peer.arrived) for _ in range(WORKERS))):
            async with following.running():
                using = asyncio.ensure_future(traffic.use())
                statuses = await asyncio.gather(*map(roll, kinds, starts))
                traffic.going = False
                await using
            accepted = sorted([*traffic.accepted, *following.jobs])
            await eventually(lambda: len(traffic.finished) >= len(accepted), within=60)
            await eventually(lambda: all_done(database, emails, len(accepted)), within=60)

    assert statuses == [[0] * EACH] * 3
    good = {
        **dict.fromkeys(["submission", "upload", "slow upload"], "201"),
        **dict.fromkeys(["list of jobs", "job", "status", "download", "slow download"], "200"),
    }
    assert set(traffic.outcomes) == set(good.items())
    assert len(following.sources) == FOLLOWERS * STREAMS
    assert all(source.connections > 1 for source in following.sources)
    assert service.public.refused == service.internal.refused == 0
    assert traffic.farewells > 0  # of gateways that were about to end
    assert sorted(peer.taken) == accepted
    assert await rows(database, handover_numbers) == []
    assert {row["status"] for row in await rows(database, jobs)} == {"finished"}
    mails = {row["custom_id"]: row["job_id"] for row in await rows(database, emails)}
    assert sorted(mails.values()) == accepted
    assert Counter(mail["CustomID"] for mail in mailjet.sent) == dict.fromkeys(mails, 1)
