import asyncio
from dataclasses import dataclass

import pytest

from common.database.errors import DatabaseUnavailable
from common.runtime.tasks import end, for_each
from devtools.waiting import eventually


@dataclass(frozen=True)
class Item:
    job_id: int


ITEMS = [Item(number) for number in range(6)]


async def test_one_that_fails_stops_no_other_and_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(item: Item) -> int:
        if item.job_id == 1:
            raise RuntimeError("a fault of ours")
        await asyncio.sleep(0)
        return item.job_id

    assert await for_each(ITEMS, work, at_once=2) == [0, 2, 3, 4, 5]
    said = capsys.readouterr().out
    assert "item.failed" in said
    assert "a fault of ours" in said


async def test_an_outage_of_the_database_is_raised_once_all_have_ended() -> None:
    ended = []

    async def work(item: Item) -> None:
        if item.job_id > 3:
            raise DatabaseUnavailable("away")
        await asyncio.sleep(0.01)
        ended.append(item.job_id)

    with pytest.raises(DatabaseUnavailable):
        await for_each(ITEMS, work, at_once=6)
    assert ended == [0, 1, 2, 3]


async def test_nothing_more_is_begun_once_the_database_is_away() -> None:
    begun = []

    async def work(item: Item) -> None:
        begun.append(item.job_id)
        raise DatabaseUnavailable("away")

    with pytest.raises(DatabaseUnavailable):
        await for_each(ITEMS, work, at_once=1)
    assert begun == [0]


async def test_no_more_are_under_way_than_may_be_at_once() -> None:
    running, most = 0, 0

    async def work(_: Item) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await for_each(ITEMS, work, at_once=3)
    assert most == 3


async def test_cancelled_it_leaves_nothing_running() -> None:
    ended = []

    async def work(item: Item) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(item.job_id)

    task = asyncio.create_task(for_each(ITEMS, work, at_once=6))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(ended) == [0, 1, 2, 3, 4, 5]


async def test_the_end_of_a_task_is_waited_for() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await end(task)
    assert ended


async def test_waiting_for_an_end_can_be_cancelled() -> None:
    ending, go_on = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await go_on.wait()

    async def wait_for_it(task: asyncio.Task[None]) -> str:
        await end(task)
        return "went on despite the cancellation"

    task = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(wait_for_it(task))
    await ending.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go_on.set()
    await eventually(task.done)


async def test_what_a_task_failed_with_is_raised_at_its_end() -> None:
    async def fail() -> None:
        raise RuntimeError

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError):
        await end(task)
