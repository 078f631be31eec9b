"""A follower gets each item once and in order, however slow it is, within bounded memory."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from common.database.errors import DatabaseUnavailable
from devtools.waiting import meanwhile
from gateway.jobs.events import follower as module
from gateway.jobs.events.follower import Follower, Positions
from gateway.jobs.events.items import Item

PAGE = 7


def item(cursor: int, *, job_id: int = 1) -> Item:
    return Item(cursor, job_id, b"x" * 100)


class Table:
    """The events of a user; `away` is how often reading fails before it works again."""

    def __init__(self, count: int = 0) -> None:
        self.items = [item(number) for number in range(1, count + 1)]
        self.away = 0
        self.reads = 0

    async def read(self, after: Positions) -> list[Item]:
        self.reads += 1
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise DatabaseUnavailable("away")
        return [one for one in self.items if one.cursor > after.event][:PAGE]

    def follower(
        self, wanted: Callable[[Item], bool] = lambda _: True, *, after: int = 0
    ) -> Follower:
        return Follower(Positions(after, 0), self.read, wanted, with_labels=False)

    def commit(self, follower: Follower, one: Item) -> None:
        self.items.append(one)
        follower.put(one)


async def take(follower: Follower, count: int) -> list[int]:
    """The cursors of the next items."""
    found: list[int] = []
    async with asyncio.timeout(20), aclosing(follower.batches(10)) as batches:
        async for batch in batches:
            found += [one.cursor for one in batch]
            if len(found) >= count:
                break
    return found


async def test_the_table_is_read_first_and_what_is_put_meanwhile_follows() -> None:
    table = Table(30)
    follower = table.follower(after=3)
    taken = asyncio.create_task(take(follower, 47))
    for number in range(31, 51):
        await asyncio.sleep(0)
        table.commit(follower, item(number))
    assert await taken == list(range(4, 51))


async def test_a_slow_one_holds_no_more_than_its_buffer_and_then_gets_everything() -> None:
    table = Table()
    follower = table.follower()
    seen: list[int] = []
    async with asyncio.timeout(20), aclosing(follower.batches(10)) as batches:
        for number in range(1, 5_001):
            if number in {2, 900}:  # it reads now and then
                seen += [one.cursor for one in await anext(batches)]
            table.commit(follower, item(number))
            assert len(follower._waiting) <= 256
        async for batch in batches:
            seen += [one.cursor for one in batch]
            if len(seen) == 5_000:
                break
    assert seen == list(range(1, 5_001))


async def test_a_silence_ends_after_the_heartbeat_although_others_events_come() -> None:
    table = Table()
    follower = table.follower(lambda one: one.job_id == 1)

    async def others() -> None:
        number = 0
        while True:
            number += 1
            table.commit(follower, item(number, job_id=2))
            await asyncio.sleep(0.005)

    async with asyncio.timeout(20), aclosing(follower.batches(0.1)) as batches, meanwhile(others()):
        assert await anext(batches) == []
        assert await anext(batches) == []


async def test_what_is_not_wanted_is_not_read_again_by_one_that_falls_behind() -> None:
    table = Table()
    follower = table.follower(lambda one: one.job_id == 1)
    async with asyncio.timeout(20), aclosing(follower.batches(0.05)) as batches:
        assert await anext(batches) == []
        for number in range(1, 100):
            table.commit(follower, item(number, job_id=2))
        reads = table.reads
        for number in range(100, 500):
            table.commit(follower, item(number))
        found: list[int] = []
        while len(found) < 400:
            found += [one.cursor for one in await anext(batches)]
    assert found == list(range(100, 500))
    assert table.reads - reads <= 400 / PAGE + 2


async def test_it_goes_on_where_it_was_when_the_database_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PAUSE_AFTER_ERROR", 0.01)
    table = Table(20)
    table.away = 3
    assert await take(table.follower(), 20) == list(range(1, 21))


async def test_the_end_comes_at_once_even_while_the_database_is_away() -> None:
    table = Table(20)
    table.away = 1_000
    follower = table.follower()
    async with asyncio.timeout(20), aclosing(follower.batches(60)) as batches:
        asyncio.get_running_loop().call_later(0.05, follower.end)
        assert await anext(batches, None) is None
