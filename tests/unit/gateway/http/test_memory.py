"""A budget of bytes that many callers share."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from gateway.http.limits import Overloaded, user_caller
from gateway.http.memory import ByteBudget

ADA, BOB, EVE = map(user_caller, ("ada", "bob", "eve"))


async def test_bytes_are_held_until_they_are_given_back() -> None:
    budget = ByteBudget(10, per_caller=10, longest_wait=0.01)
    async with budget.hold(ADA, 6) as held:
        with pytest.raises(Overloaded):
            async with budget.hold(BOB, 6):
                pass
        held.shrink(4)
        async with budget.hold(BOB, 6):
            pass
    async with budget.hold(BOB, 10):
        pass


async def test_nobody_waits_behind_a_caller_who_has_used_up_its_part() -> None:
    budget = ByteBudget(10, per_caller=6)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(budget.hold(ADA, 5))
        second = asyncio.create_task(stack.enter_async_context(budget.hold(ADA, 5)))
        await asyncio.sleep(0)
        async with budget.hold(BOB, 5):
            assert not second.done()
        second.cancel()


async def test_what_is_larger_than_a_callers_part_passes_alone() -> None:
    budget = ByteBudget(10, per_caller=6, longest_wait=0.01)
    async with budget.hold(ADA, 1_000), budget.hold(BOB, 4):
        with pytest.raises(Overloaded):
            async with budget.hold(ADA, 1):
                pass


async def test_a_large_piece_is_not_overtaken_for_ever_by_small_ones() -> None:
    budget, order = ByteBudget(10, per_caller=10), list[str]()

    async def hold(name: str, size: int) -> None:
        async with budget.hold(user_caller(name), size):
            order.append(name)

    async with budget.hold(ADA, 4):
        waiting = [asyncio.create_task(hold(*one)) for one in (("large", 10), ("small", 1))]
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(*waiting)
    assert order == ["large", "small"]


async def test_a_cancelled_wait_holds_nothing() -> None:
    budget = ByteBudget(10, per_caller=10, longest_wait=1.0)
    async with budget.hold(ADA, 10):
        waiting = asyncio.create_task(budget.hold(BOB, 10).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with budget.hold(EVE, 10):
        pass
