"""A daemon with several couriers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from common.database.notify import EMAILS, HANDOVERS, ChannelNotifier
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import DAEMON, HEALTH, Daemon, create_app, drain
from devtools.database import database_settings
from devtools.waiting import eventually


class Courier:
    """Delivers the numbers of a queue; a claim waits for `may_claim`."""

    def __init__(self) -> None:
        self.queue = [1, 2, 3]
        self.delivered: list[int] = []
        self.closed = False
        self.may_claim = asyncio.Event()
        self.may_claim.set()

    def slots(self, under_way: int) -> int:
        return 1 - under_way

    async def take(self, limit: int) -> Sequence[int]:
        await self.may_claim.wait()
        taken, self.queue = self.queue[:limit], self.queue[limit:]
        return taken

    async def deliver(self, unit: int) -> None:
        assert not self.closed
        self.delivered.append(unit)

    async def give_back(self, unit: int) -> None:
        self.queue.append(unit)


def daemon_app(url: str, couriers: Sequence[Courier]) -> web.Application:
    @asynccontextmanager
    async def open_parts(daemon: Daemon) -> AsyncIterator[None]:
        async def tick() -> None:
            daemon.tick()

        for courier, channel in zip(couriers, (HANDOVERS, EMAILS), strict=False):
            daemon.add_courier(courier, WorkSignal(), channel=channel)
        daemon.ticks.every(0.05, "tick", tick)
        yield
        for courier in couriers:
            courier.closed = True

    return create_app("test", database_settings(url), open_parts, shutdown_grace=1.0)


async def test_every_courier_of_a_daemon_delivers_until_the_daemon_drains(
    database_url: str,
) -> None:
    couriers = [Courier(), Courier()]
    app = daemon_app(database_url, couriers)
    await drain(app)  # nothing to drain before the start
    async with TestServer(app):
        await eventually(lambda: all(courier.delivered == [1, 2, 3] for courier in couriers))
        await drain(app)
        for courier in couriers:
            courier.queue = [4]
        app[DAEMON].notifier.notify(HANDOVERS)
    assert [courier.delivered for courier in couriers] == [[1, 2, 3]] * 2
    assert app[HEALTH].draining


async def test_a_notification_wakes_the_courier_of_its_channel(postgresql_url: str) -> None:
    courier = Courier()
    app = daemon_app(postgresql_url, [courier])
    async with TestServer(app):
        await eventually(lambda: courier.delivered == [1, 2, 3])
        courier.queue = [4]
        notifier = ChannelNotifier(app[DAEMON].database)
        notifier.notify(HANDOVERS)
        await notifier.close()
        await eventually(lambda: courier.delivered == [1, 2, 3, 4])


async def test_a_daemon_with_a_stuck_courier_has_no_good_tick(sqlite_url: str) -> None:
    couriers = [Courier(), Courier()]
    couriers[1].may_claim.clear()
    app = daemon_app(sqlite_url, couriers)
    async with TestServer(app):
        await eventually(lambda: couriers[0].delivered == [1, 2, 3])
        app[DAEMON].tick()
        assert app[HEALTH].tick_age is None
        couriers[1].may_claim.set()
        await eventually(lambda: app[HEALTH].tick_age is not None)
