import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from common.database.errors import DatabaseUnavailable
from common.runtime.claim_loop import ClaimLoop, WorkSignal
from devtools.waiting import eventually
from tests.support.courier import NumberCourier


class Work(NumberCourier):
    """A courier and its loop."""

    def __init__(self, count: int = 0, slots: int = 3) -> None:
        super().__init__(count, slots)
        self.signal = WorkSignal()
        self.loop: ClaimLoop[int] = ClaimLoop(self, self.signal, poll=30.0, to_settle=0.05)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.loop.start()
        yield
        await self.loop.stop(1.0)

    async def start_delivering(self, count: int = 1) -> None:
        """Start, up to the deliveries, which hang."""
        self.go_on.clear()
        self.loop.start()
        await eventually(lambda: self.loop.under_way == count)


async def test_a_backlog_is_delivered_in_free_slots_without_waiting_for_the_poll() -> None:
    work = Work(20, slots=3)
    work.go_on.clear()
    async with work.running():
        await eventually(lambda: work.loop.under_way == 3)
        work.signal.wake()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(work.queue) == 17
        work.go_on.set()
        await eventually(lambda: sorted(work.delivered) == list(range(20)))


async def test_a_wake_up_leads_to_a_claim_at_once() -> None:
    work = Work()
    async with work.running():
        await eventually(lambda: bool(work.claims))
        work.queue = [1]
        work.signal.wake()
        await eventually(lambda: work.delivered == [1], within=5.0)


async def test_a_freed_slot_leads_to_a_claim_only_if_the_last_one_found_something() -> None:
    signal = WorkSignal()
    signal.claimed(0)
    signal.slot_freed()
    assert not signal._event.is_set()
    signal.claimed(1)
    signal.slot_freed()
    assert signal._event.is_set()


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), RuntimeError("bug")])
async def test_the_loop_survives_any_exception_of_a_claim(failure: Exception) -> None:
    work = Work(1)
    work.failures = [failure]
    async with work.running():
        await eventually(lambda: work.delivered == [0])


async def test_stopping_waits_for_what_is_under_way_and_claims_nothing_more() -> None:
    work = Work(5, slots=2)
    await work.start_delivering(2)
    asyncio.get_running_loop().call_later(0.1, work.go_on.set)
    await work.loop.stop(5.0)
    assert len(work.delivered) == 2
    assert len(work.queue) == 3


async def test_units_claimed_while_the_loop_stops_are_given_back() -> None:
    work = Work(2)
    work.may_claim.clear()
    work.loop.start()
    await work.hangs.wait()
    asyncio.get_running_loop().call_later(0.05, work.may_claim.set)
    await work.loop.stop(5.0)
    assert (work.delivered, work.queue) == ([], [0, 1])


async def test_a_claim_that_hangs_is_cancelled_and_deliveries_keep_their_grace() -> None:
    work = Work(1)
    await work.start_delivering()
    work.may_claim.clear()
    work.signal.wake()
    await work.hangs.wait()
    asyncio.get_running_loop().call_later(0.1, work.go_on.set)
    async with asyncio.timeout(10.0):
        await work.loop.stop(0.5)
    assert work.delivered == [0]


async def test_late_deliveries_are_cancelled_and_stopping_again_gives_no_new_grace() -> None:
    work = Work(1)
    work.cancellations = 1
    await work.start_delivering()
    await work.loop.stop(0.05)
    assert work.loop.under_way == 1
    async with asyncio.timeout(10.0):
        await work.loop.stop(60.0)
    assert (work.loop.under_way, work.delivered) == (0, [])
