"""Requests in flight, which a process waits for before it ends."""

import asyncio

import pytest

from gateway.http.draining import InFlight
from tests.support.clock import only_sleep_takes_time


async def test_requests_that_are_open_are_waited_for_and_later_ones_are_not() -> None:
    in_flight = InFlight()
    first, second = in_flight.begin(), in_flight.begin()
    waiting = asyncio.ensure_future(in_flight.outlast(30.0))
    await asyncio.sleep(0)
    in_flight.begin()
    in_flight.end(first)
    await asyncio.sleep(0)
    assert not waiting.done()
    in_flight.end(second)
    assert await waiting == 0
    assert len(in_flight) == 1


async def test_the_wait_is_bounded_and_returns_how_many_remain() -> None:
    in_flight = InFlight()
    in_flight.begin()
    in_flight.end(in_flight.begin())
    assert await in_flight.outlast(0.01) == 1


async def test_without_open_requests_there_is_no_wait() -> None:
    assert await InFlight().outlast(0.0) == 0


async def test_after_the_last_request_a_client_has_time_for_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, in_flight = only_sleep_takes_time(monkeypatch), InFlight()
    began, sleep = clock.now, asyncio.sleep

    async def meanwhile(seconds: float) -> None:
        await sleep(1.0)
        in_flight.end(in_flight.begin())
        monkeypatch.setattr(asyncio, "sleep", sleep)
        await sleep(seconds - 1.0)

    in_flight.end(in_flight.begin())
    monkeypatch.setattr(asyncio, "sleep", meanwhile)
    await in_flight.linger(2.0, 30.0)
    assert clock.now - began == 3.0


async def test_nobody_is_waited_for_for_long_and_not_at_all_if_nobody_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, in_flight = only_sleep_takes_time(monkeypatch), InFlight()
    began = clock.now
    await in_flight.linger(3_600.0, 3_600.0)
    assert clock.now == began
    in_flight.end(in_flight.begin())
    await in_flight.linger(3_600.0, 5.0)
    assert clock.now - began == 5.0
