import asyncio

from common.runtime.periodic import Ticks
from devtools.waiting import eventually


async def test_a_tick_that_fails_comes_again() -> None:
    ticks, runs = Ticks(), 0

    async def tick() -> None:
        nonlocal runs
        runs += 1
        raise RuntimeError

    ticks.every(0.05, "failing", tick)
    ticks.start()
    await eventually(lambda: runs >= 3)
    await ticks.stop(1.0)


async def test_a_tick_never_overlaps_itself_and_is_not_cut_short_by_the_stop() -> None:
    ticks, running, most, ended = Ticks(), 0, 0, 0

    async def tick() -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.2)
        running -= 1
        ended += 1

    ticks.every(0.02, "slow", tick)
    ticks.start()
    await eventually(lambda: running == 1 and ended >= 1)
    before = ended
    await ticks.stop(5.0)
    assert (running, most) == (0, 1)
    assert ended == before + 1
