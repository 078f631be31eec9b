"""A daemon with several couriers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.database.notify import EMAILS, HANDOVERS, ChannelNotifier
from common.runtime.claim_loop import WorkSignal
from common.runtime.daemon import DAEMON, HEALTH, Daemon, create_app, drain
from devtools.database import database_settings
from devtools.waiting import eventually
from tests.support.courier import NumberCourier


def daemon_app(url: str, couriers: Sequence[NumberCourier]) -> web.Application:
    @asynccontextmanager
    async def open_parts(daemon: Daemon) -> AsyncIterator[None]:
        async def tick() -> None:
            daemon.tick()

        for courier, channel in zip(couriers, (HANDOVERS, EMAILS), strict=False):
            daemon.add_courier(courier, WorkSignal(), channel=channel)
        daemon.ticks.every(0.05, "tick", tick)
        yield
        for courier in couriers:
            courier.queue = [-1]  # for nothing to deliver any more

    return create_app("test", database_settings(url), open_parts, shutdown_grace=1.0)


async def test_every_courier_of_a_daemon_delivers_until_the_daemon_drains(
    database_url: str,
) -> None:
    couriers = [NumberCourier(3, 1), NumberCourier(3, 1)]
    app = daemon_app(database_url, couriers)
    await drain(app)  # nothing to drain before the start
    async with TestServer(app):
        await eventually(lambda: all(courier.delivered == [0, 1, 2] for courier in couriers))
        await drain(app)
        for courier in couriers:
            courier.queue = [4]
        app[DAEMON].notifier.notify(HANDOVERS)
    assert [courier.delivered for courier in couriers] == [[0, 1, 2]] * 2
    assert app[HEALTH].draining


async def test_a_notification_wakes_the_courier_of_its_channel(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.runtime.daemon._POLL", 3_600.0)
    courier = NumberCourier(3, 1)
    app = daemon_app(postgresql_url, [courier])
    async with TestServer(app):
        await eventually(lambda: courier.delivered == [0, 1, 2])
        courier.queue = [4]
        notifier = ChannelNotifier(app[DAEMON].database)
        notifier.notify(HANDOVERS)
        await notifier.close()
        await eventually(lambda: courier.delivered == [0, 1, 2, 4])


async def test_a_daemon_with_a_stuck_courier_has_no_good_tick(sqlite_url: str) -> None:
    couriers = [NumberCourier(3, 1), NumberCourier(3, 1)]
    couriers[1].may_claim.clear()
    app = daemon_app(sqlite_url, couriers)
    async with TestServer(app):
        await eventually(lambda: couriers[0].delivered == [0, 1, 2])
        app[DAEMON].tick()
        assert app[HEALTH].tick_age is None
        couriers[1].may_claim.set()
        await eventually(lambda: app[HEALTH].tick_age is not None)
