import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from common.telemetry.health import Health, admin_routes


async def read(health: Health, path: str = "/readyz") -> tuple[int, Any]:
    app = web.Application()
    app.add_routes(admin_routes(health))
    async with TestClient(TestServer(app)) as client, client.get(path) as response:
        body = await response.text() if path == "/metrics" else await response.json()
        return response.status, body


async def test_a_process_is_ready_from_its_start_to_its_draining() -> None:
    health = Health("gateway")
    assert (await read(health))[0] == 503
    health.started = True
    assert (await read(health))[0] == 200
    health.draining = True
    status, body = await read(health)
    assert (status, body["ready"], body["draining"]) == (503, False, True)
    assert (await read(health, "/livez"))[0] == 200


async def test_metrics_show_whether_it_is_ready() -> None:
    health = Health("gateway")
    status, text = await read(health, "/metrics")
    assert status == 200
    assert "# TYPE python_info gauge" in text
    assert "\nopencloud_ready 0.0\n" in text
    health.started = True
    assert "\nopencloud_ready 1.0\n" in (await read(health, "/metrics"))[1]


async def test_a_daemon_is_ready_while_its_last_good_tick_is_recent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = Health("dispatcher", max_tick_age=60.0)
    health.started = True
    assert (await read(health))[0] == 503
    health.tick()
    assert (await read(health))[0] == 200
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 61.0)
    monkeypatch.setattr("common.telemetry.health.time", later)
    status, body = await read(health)
    assert status == 503
    assert body["last_tick_age"] > 60.0


async def test_checks_are_reported_and_change_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async def good() -> dict[str, Any]:
        return {"latency": 1}

    async def bad() -> None:
        raise ConnectionError("postgresql://user:secret@host")

    async def never() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("common.telemetry.health._CHECK_TIMEOUT", 0.1)
    health = Health("gateway")
    health.started = True
    for name, check in (("good", good), ("bad", bad), ("never", never)):
        health.add_check(name, check)
    status, body = await read(health)
    assert status == 200
    assert body["good"] == {"ok": True, "latency": 1}
    assert body["bad"] == {"ok": False, "reason": "ConnectionError"}
    assert body["never"] == {"ok": False, "reason": "TimeoutError"}
