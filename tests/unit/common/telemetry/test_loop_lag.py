import asyncio
import time
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiohttp import web
from prometheus_client import REGISTRY

from common.telemetry import loop_lag
from devtools.waiting import eventually

NEW_LOOP = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def looks(within: str = "+Inf") -> float:
    """How often was looked, with the loop late by at most so many seconds."""
    found = REGISTRY.get_sample_value("opencloud_loop_lag_seconds_bucket", {"le": within})
    assert found is not None
    return found


@asynccontextmanager
async def measured() -> Any:
    async with asynccontextmanager(loop_lag.measure_loop_lag)(web.Application()):  # type: ignore[arg-type]
        yield


@pytest.mark.parametrize("kind", NEW_LOOP)
def test_a_stall_counts_by_its_length(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "EVERY", 0.05)

    async def stall() -> None:
        async with measured():
            before = looks() - looks("0.1")
            time.sleep(0.6)
            await eventually(lambda: looks() - looks("0.1") > before)
            late = looks() - looks("0.1") - before
            # due at 0.05, 0.1, … 0.5 of the 0.6 s, and later where the machine is busy
            assert late >= 9

    with asyncio.Runner(loop_factory=NEW_LOOP[kind]) as runner:
        runner.run(stall())


@pytest.mark.parametrize("kind", NEW_LOOP)
def test_it_is_looked_at_again_and_again_until_the_application_ends(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_lag, "EVERY", 0.01)

    async def run() -> None:
        before = looks()
        async with measured():
            await eventually(lambda: looks() >= before + 5)
        ended = looks()
        await asyncio.sleep(0.05)
        assert looks() == ended

    with asyncio.Runner(loop_factory=NEW_LOOP[kind]) as runner:
        runner.run(run())
