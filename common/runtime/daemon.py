"""A daemon: an aiohttp application that serves its probes while it claims and delivers work.

A service adds its own parts to it: couriers (several, if it sends from several outboxes), ticks,
checks, and the resources that they need.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from aiohttp import web

from common.config.settings import AdminSettings, DatabaseSettings
from common.database.engine import Database
from common.database.notify import ChannelNotifier
from common.runtime import process
from common.runtime.claim_loop import ClaimLoop, Courier, Unit, WorkSignal
from common.runtime.listening import listening
from common.runtime.periodic import Ticks
from common.runtime.startup import open_database
from common.telemetry.health import Health, admin_routes, export_build

_POLL: Final = 1.0
_POLL_SQLITE: Final = 0.5
_MAX_TICK_AGE: Final = 5.0
_STUCK_AFTER: Final = 10.0
_TICK_GRACE: Final = 5.0

_GC_THRESHOLD: Final = 5_000
"""As in `process`, but lower: a daemon's ticks leave a few cycles of SQLAlchemy's each, which would
take hours, and megabytes, to reach a gateway's threshold."""


class Daemon:
    """What the parts of a daemon share; they are added before it starts to work."""

    def __init__(self, database: Database, health: Health, *, shutdown_grace: float) -> None:
        """`shutdown_grace`: seconds that deliveries under way get at the end."""
        self.database = database
        self.health = health
        self.notifier = ChannelNotifier(database)
        self.ticks = Ticks()
        self._shutdown_grace = shutdown_grace
        self._loops: list[ClaimLoop[Any]] = []
        self._listeners: list[AbstractAsyncContextManager[None]] = []

    def add_courier(
        self, courier: Courier[Unit], signal: WorkSignal, *, channel: str
    ) -> ClaimLoop[Unit]:
        """Let `courier` deliver whenever `channel` or `signal` announces work, and by a poll."""
        poll = _POLL_SQLITE if self.database.is_sqlite else _POLL
        loop = ClaimLoop(courier, signal, poll=poll)
        self._loops.append(loop)
        self._listeners.append(listening(self.database.settings, channel, lambda _: signal.wake()))
        return loop

    def tick(self) -> None:
        """The database has answered: a good tick, unless a claim loop is stuck."""
        if all(loop.turn_age < _STUCK_AFTER for loop in self._loops):
            self.health.tick()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Claim, deliver and tick until the exit, which waits for what is under way."""
        async with AsyncExitStack() as stack:
            for listener in self._listeners:
                await stack.enter_async_context(listener)
            for loop in self._loops:
                loop.start()
            self.ticks.start()
            try:
                yield
            finally:
                self.health.draining = True
                await self.ticks.stop(_TICK_GRACE)
                await self.drain()

    async def drain(self) -> None:
        """Claim nothing more, and finish what is under way within the grace period."""
        await asyncio.gather(*(loop.stop(self._shutdown_grace) for loop in self._loops))


HEALTH: Final = web.AppKey("HEALTH", Health)
DAEMON: Final = web.AppKey("DAEMON", Daemon)


def create_app(
    service: str,
    database: DatabaseSettings,
    open_parts: Callable[[Daemon], AbstractAsyncContextManager[None]],
    *,
    shutdown_grace: float,
) -> web.Application:
    """The application of a daemon, whose parts `open_parts` adds, and closes at the end."""
    app = web.Application()
    health = app[HEALTH] = Health(service, max_tick_age=_MAX_TICK_AGE)
    app.add_routes(admin_routes(health))

    async def work(app: web.Application) -> AsyncIterator[None]:
        async with open_database(database) as opened:
            health.add_check("database", opened.ping)
            daemon = app[DAEMON] = Daemon(opened, health, shutdown_grace=shutdown_grace)
            try:
                async with open_parts(daemon), daemon.working():
                    yield
            finally:
                await daemon.notifier.close()

    app.cleanup_ctx.append(work)
    return app


def run(service: str, app: web.Application, admin: AdminSettings) -> None:
    """Run a daemon's application until a signal comes."""
    export_build(admin.revision)
    process.run(
        service,
        app,
        address=process.Address("ADMIN_PORT", admin.host, admin.port),
        health=app[HEALTH],
        drain=partial(drain, app),
        gc_threshold=_GC_THRESHOLD,
    )


async def drain(app: web.Application) -> None:
    """Claim nothing more, and finish what is under way within the grace period."""
    if DAEMON in app:
        await app[DAEMON].drain()
