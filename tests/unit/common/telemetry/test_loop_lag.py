"""Stalls of the event loop are measured by their length."""

import asyncio
import time

import pytest
import uvloop
from prometheus_client import REGISTRY

from common.telemetry import loop_lag
from devtools.waiting import eventually

NEW_LOOP = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def measurements(within: str = "+Inf") -> float:
    """How many there are with the loop late by at most so many seconds."""
    found = REGISTRY.get_sample_value("opencloud_loop_lag_seconds_bucket", {"le": within})
    assert found is not None
    return found


@pytest.mark.parametrize("kind", NEW_LOOP)
def test_a_stall_counts_by_its_length(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "EVERY", 0.05)

    async def stall() -> None:
        async with loop_lag.measure_loop_lag():
            before = measurements() - measurements("0.1")
            time.sleep(0.6)
            await eventually(lambda: measurements() - measurements("0.1") > before)
            late = measurements() - measurements("0.1") - before
            # due at 0.05, 0.1, … 0.5 of the 0.6 s, and later where the machine is busy
            assert late >= 9

    with asyncio.Runner(loop_factory=NEW_LOOP[kind]) as runner:
        runner.run(stall())


@pytest.mark.parametrize("kind", NEW_LOOP)
def test_it_is_measured_until_the_context_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "EVERY", 0.01)

    async def run() -> None:
        before = measurements()
        async with loop_lag.measure_loop_lag():
            await eventually(lambda: measurements() >= before + 5)
        ended = measurements()
        await asyncio.sleep(0.05)
        assert measurements() == ended

    with asyncio.Runner(loop_factory=NEW_LOOP[kind]) as runner:
        runner.run(run())
