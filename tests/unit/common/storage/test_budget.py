"""Memory stays within its bounds for any number of transfers and users."""

import asyncio
from contextlib import ExitStack

import pytest

from common.storage.budget import (
    LARGEST,
    SMALLEST,
    BoundedCache,
    ChunkBudget,
    PartBudget,
    ReadBudget,
)
from common.storage.errors import ShareUsedUp, StorageUnavailable


class Response:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def test_chunks_shrink_as_transfers_begin_and_grow_as_they_end() -> None:
    budget = ChunkBudget(total=4 * LARGEST)
    assert budget.size == LARGEST
    with ExitStack() as transfers:
        for _ in range(8):
            transfers.enter_context(budget.transfer())
        assert budget.size == LARGEST // 2
        for _ in range(1_000):
            transfers.enter_context(budget.transfer())
        assert budget.size == SMALLEST
    assert budget.size == LARGEST


def test_a_full_cache_forgets_the_oldest_name() -> None:
    cache = BoundedCache(2)
    for name in "abc":
        cache.add(name)
    assert [name in cache for name in "abc"] == [False, True, True]


async def test_a_part_that_comes_free_goes_to_the_users_in_turn() -> None:
    budget, served = PartBudget(1), list[str]()

    async def hold(user: str, done: asyncio.Event) -> None:
        with budget.upload(user) as held:
            await held.acquire()
            served.append(user)
            await done.wait()

    done = asyncio.Event()
    uploads = [asyncio.create_task(hold(user, done)) for user in ("a", "a", "a", "b")]
    await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*uploads)
    assert served == ["a", "b", "a", "a"]


async def test_an_upload_that_waits_too_long_learns_whose_parts_are_in_use() -> None:
    budget = PartBudget(2, per_user=1, timeout=0.01)
    with budget.upload("a") as first, budget.upload("b") as second, budget.upload("c") as third:
        await first.acquire()
        with pytest.raises(ShareUsedUp):
            await first.acquire()
        await second.acquire()
        with pytest.raises(StorageUnavailable):
            await third.acquire()
        first.release()
        await third.acquire()


async def test_an_upload_that_is_cancelled_leaves_its_turn_to_others() -> None:
    budget = PartBudget(1)
    with budget.upload("a") as first:
        await first.acquire()
        with budget.upload("b") as second, budget.upload("c") as third:
            leaving = asyncio.create_task(second.acquire())
            staying = asyncio.create_task(third.acquire())
            await asyncio.sleep(0)
            leaving.cancel()
            first.release()
            await staying
            assert (second.count, third.count) == (0, 1)


async def test_the_response_that_stands_still_longest_gives_way() -> None:
    budget = ReadBudget(2)
    first, second = Response(), Response()
    for response in (first, second):
        await budget.acquire()
        budget.stand(response)
    budget.move(first)
    budget.stand(first)
    await budget.acquire()
    assert (first.is_closed, second.is_closed) == (False, True)


async def test_a_response_that_comes_to_stand_still_gives_way_to_one_that_waits() -> None:
    budget, response = ReadBudget(1), Response()
    await budget.acquire()
    waiting = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0)
    budget.stand(response)
    await waiting
    assert response.is_closed
