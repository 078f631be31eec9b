"""Probes and metrics of a process: `/livez`, `/readyz`, `/metrics`.

`/livez` answers while the event loop turns. `/readyz` tells whether the process wants work: a
gateway that has started and is not draining; a daemon whose last good tick is young as well. What
the checks find (database, peer, …) is told in the body and changes no verdict: a gateway taken out
of service because the database is away would leave a proxy to answer 404 to running workers.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Gauge,
    disable_created_metrics,
    generate_latest,
)

from common.config.settings import AdminSettings
from common.telemetry.logs import get_logger

Check = Callable[[], Awaitable[Mapping[str, Any] | None]]
CleanupContext = Callable[[web.Application], AsyncIterator[None]]

_CHECK_TIMEOUT: Final = 2.0

READY: Final = Gauge("opencloud_ready", "1 while the process wants work, as its /readyz tells")

log = get_logger()

# a second series beside each counter, which tells nothing here
disable_created_metrics()  # type: ignore[no-untyped-call]


class Health:
    """What a process knows of its own state.

    `max_tick_age`, in seconds, is how old the last good tick of a ready daemon may be; None for a
    process that has no ticks.
    """

    def __init__(self, service: str, *, max_tick_age: float | None = None) -> None:
        self.started = False
        self.draining = False
        self._service = service
        self._max_tick_age = max_tick_age
        self._last_tick: float | None = None
        self._checks: dict[str, Check] = {}

    def add_check(self, name: str, check: Check) -> None:
        """Tell what `check` finds in the body of `/readyz`; one that raises is shown as not ok."""
        self._checks[name] = check

    def tick(self) -> None:
        """The daemon has done its round: the database answered."""
        self._last_tick = time.monotonic()

    @property
    def tick_age(self) -> float | None:
        """Seconds since the last good tick; None before the first."""
        return None if self._last_tick is None else time.monotonic() - self._last_tick

    @property
    def is_ready(self) -> bool:
        if not self.started or self.draining:
            return False
        if self._max_tick_age is None:
            return True
        age = self.tick_age
        return age is not None and age <= self._max_tick_age

    async def report(self) -> dict[str, Any]:
        """The body of `/readyz`."""
        checks = dict(self._checks)  # a service that is starting adds some meanwhile
        results = await asyncio.gather(*(_run(check) for check in checks.values()))
        report: dict[str, Any] = {
            "service": self._service,
            "ready": self.is_ready,
            "started": self.started,
            "draining": self.draining,
        }
        if self._max_tick_age is not None:
            age = self.tick_age
            report["last_tick_age"] = None if age is None else round(age, 3)
        return report | dict(zip(checks, results, strict=True))


async def _run(check: Check) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT):
            facts = await check()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the probe has to tell
        return {"ok": False, "reason": type(error).__name__}
    return {"ok": True, **(facts or {})}


def admin_routes(health: Health) -> list[web.RouteDef]:
    """The three routes, to be added to an application."""
    READY.set_function(lambda: health.is_ready)

    async def livez(_: web.Request) -> web.Response:
        return _json({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        report = await health.report()
        status = HTTPStatus.OK if report["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(report, status)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [
        web.get("/livez", livez),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
    ]


def _json(body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        body=orjson.dumps(body, default=str), status=status, content_type="application/json"
    )


def serve_admin(settings: AdminSettings, health: Health) -> CleanupContext:
    """A `cleanup_ctx` that serves the probes on a port of their own, which no ingress routes.

    Raises `OSError` at start when the port is taken.
    """

    async def serve(_: web.Application) -> AsyncIterator[None]:
        admin = web.Application()
        admin.add_routes(admin_routes(health))
        runner = web.AppRunner(admin, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
            log.info("admin.started", host=settings.host, port=settings.port)
            yield
        finally:
            await runner.cleanup()

    return serve
