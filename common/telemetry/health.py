"""Probes and metrics of a process: `/livez`, `/readyz`, `/metrics`.

`/livez` answers while the event loop runs. `/readyz` states whether the process wants work: a
gateway does from its start until it drains, a daemon while its last good tick is recent as well.
The findings of the checks (database, peer, …) are part of the body and change no status: with every
gateway out of service because the database is away, a proxy would answer 404 to running workers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
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

from common.config.settings import VERSION

Check = Callable[[], Awaitable[Mapping[str, Any] | None]]

_CHECK_TIMEOUT: Final = 2.0

BUILD: Final = Gauge(
    "opencloud_build_info", "1, with the version and the revision that run", ["version", "revision"]
)
READY: Final = Gauge("opencloud_ready", "1 while the process wants work, as in its /readyz")

# a second series for each counter, of no use here
disable_created_metrics()  # type: ignore[no-untyped-call]


def export_build(revision: str) -> None:
    """Let `opencloud_build_info` show this version and `revision`."""
    BUILD.clear()
    BUILD.labels(version=VERSION, revision=revision).set(1)


class Health:
    """The state of one process.

    `max_tick_age` is the age in seconds up to which a daemon's last good tick counts as recent;
    None for a process without ticks.
    """

    def __init__(self, service: str, *, max_tick_age: float | None = None) -> None:
        self.started = False
        self.draining = False
        self._service = service
        self._max_tick_age = max_tick_age
        self._last_tick: float | None = None
        self._checks: dict[str, Check] = {}

    def add_check(self, name: str, check: Check) -> None:
        """Add a check to the body of `/readyz`; one that raises is reported as not ok."""
        self._checks[name] = check

    def tick(self) -> None:
        """Record a good tick of the daemon: the database answered."""
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
        checks = dict(self._checks)  # a startup adds some in the meantime
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
    except Exception as error:  # noqa: BLE001 - any failure is a finding
        return {"ok": False, "reason": type(error).__name__}
    return {"ok": True, **(facts or {})}


def admin_routes(health: Health) -> list[web.RouteDef]:
    """The three routes. `health` becomes the source of the metric `opencloud_ready`."""
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
