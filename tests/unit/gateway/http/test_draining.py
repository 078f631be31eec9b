"""Requests under way, which a process that ends waits for."""

import asyncio

from gateway.http.draining import InFlight


async def test_those_of_the_moment_are_waited_for_and_later_ones_are_not() -> None:
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


async def test_the_wait_is_bounded_and_tells_how_many_are_left() -> None:
    in_flight = InFlight()
    in_flight.begin()
    in_flight.end(in_flight.begin())
    assert await in_flight.outlast(0.01) == 1


async def test_nothing_under_way_is_not_waited_for() -> None:
    assert await InFlight().outlast(0.0) == 0
