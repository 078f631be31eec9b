import asyncio
from dataclasses import dataclass

import pytest

from common.database.errors import DatabaseUnavailable
from common.runtime.tasks import for_each, in_background
from devtools.waiting import eventually


@dataclass(frozen=True)
class Item:
    job_id: int


ITEMS = [Item(number) for number in range(6)]


async def test_an_item_that_fails_stops_no_other_and_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(item: Item) -> int:
        if item.job_id == 1:
            raise RuntimeError("a fault of ours")
        await asyncio.sleep(0)
        return item.job_id

    assert await for_each(ITEMS, work, at_once=2) == [0, 2, 3, 4, 5]
    output = capsys.readouterr().out
    assert "item.failed" in output
    assert "a fault of ours" in output


@pytest.mark.parametrize("at_once", [1, 6])
async def test_an_outage_of_the_database_starts_nothing_more_and_is_raised_at_the_end(
    at_once: int,
) -> None:
    outcomes = []

    async def work(item: Item) -> None:
        if item.job_id >= 2:
            outcomes.append("failed")
            raise DatabaseUnavailable("away")
        await asyncio.sleep(0.01)
        outcomes.append("ended")

    with pytest.raises(DatabaseUnavailable):
        await for_each(ITEMS, work, at_once=at_once)
    assert sorted(outcomes) == ["ended", "ended", "failed"]


async def test_no_more_are_under_way_than_may_be_and_a_cancellation_ends_them() -> None:
    running, most, ended = 0, 0, 0

    async def work(_: Item) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended += 1

    task = asyncio.create_task(for_each(ITEMS, work, at_once=3))
    await eventually(lambda: running == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (most, ended) == (3, 3)


async def test_the_exit_awaits_the_end_of_the_task_and_can_itself_be_cancelled() -> None:
    ending, go_on = asyncio.Event(), asyncio.Event()
    ended: list[bool] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            ended.append(await go_on.wait())

    async def run() -> None:
        async with in_background(slow_to_end()):
            await asyncio.sleep(0)

    waiting = asyncio.create_task(run())
    await ending.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await eventually(lambda: ended)


async def test_the_exception_of_a_task_is_raised_at_the_exit() -> None:
    async def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        async with in_background(fail()):
            await asyncio.sleep(0)
