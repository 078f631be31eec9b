import asyncio
from collections.abc import Sequence

import pytest

from common.database.errors import DatabaseUnavailable
from common.runtime.claim_loop import ClaimLoop, persist
from common.runtime.periodic import Ticks
from devtools.waiting import eventually


class Work:
    """A queue of numbers with a few slots; deliveries wait for `go_on`."""

    def __init__(self, count: int = 0, slots: int = 3) -> None:
        self.queue = list(range(count))
        self.delivered: list[int] = []
        self.returned: list[int] = []
        self.claims: list[int] = []
        self.failures: list[Exception] = []
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.loop: ClaimLoop[int] = ClaimLoop(
            slots=lambda: slots - self.loop.under_way,
            take=self.take,
            deliver=self.deliver,
            give_back=self.give_back,
            poll=30.0,
        )

    async def take(self, limit: int) -> Sequence[int]:
        if self.failures:
            raise self.failures.pop()
        self.claims.append(limit)
        taken, self.queue = self.queue[:limit], self.queue[limit:]
        return taken

    async def deliver(self, unit: int) -> None:
        await self.go_on.wait()
        self.delivered.append(unit)

    async def give_back(self, unit: int) -> None:
        self.returned.append(unit)


async def test_a_backlog_is_worked_off_without_waiting_for_the_poll() -> None:
    work = Work(20)
    work.loop.start()
    await eventually(lambda: len(work.delivered) == 20)
    await work.loop.stop(1.0)
    assert sorted(work.delivered) == list(range(20))


async def test_no_more_is_claimed_than_there_are_free_slots() -> None:
    work = Work(20, slots=3)
    work.go_on.clear()
    work.loop.start()
    await eventually(lambda: work.loop.under_way == 3)
    work.loop.wake()
    await asyncio.sleep(0.05)
    assert len(work.queue) == 17
    work.go_on.set()
    await eventually(lambda: len(work.delivered) == 20)
    await work.loop.stop(1.0)


async def test_a_wake_up_brings_a_claim_at_once() -> None:
    work = Work()
    work.loop.start()
    await eventually(lambda: bool(work.claims))
    work.queue = [1]
    work.loop.wake()
    await eventually(lambda: work.delivered == [1], within=2.0)
    await work.loop.stop(1.0)


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), RuntimeError("bug")])
async def test_the_loop_survives_whatever_a_claim_raises(failure: Exception) -> None:
    work = Work(1)
    work.failures = [failure]
    work.loop.start()
    await eventually(lambda: work.delivered == [0])
    await work.loop.stop(1.0)


async def test_stopping_waits_for_what_is_under_way_and_claims_nothing_more() -> None:
    work = Work(5, slots=2)
    work.go_on.clear()
    work.loop.start()
    await eventually(lambda: work.loop.under_way == 2)
    asyncio.get_running_loop().call_later(0.1, work.go_on.set)
    await work.loop.stop(5.0)
    assert len(work.delivered) == 2
    assert len(work.queue) == 3


async def test_a_claim_that_hangs_is_cancelled_within_the_grace_period() -> None:
    work, hangs = Work(), asyncio.Event()

    async def hang(_: int) -> Sequence[int]:
        hangs.set()
        await asyncio.Event().wait()
        return ()

    loop = ClaimLoop[int](
        slots=lambda: 1, take=hang, deliver=work.deliver, give_back=work.give_back, poll=30.0
    )
    loop.start()
    await hangs.wait()
    async with asyncio.timeout(5.0):
        await loop.stop(0.05)


async def test_what_is_under_way_keeps_its_grace_while_a_claim_hangs() -> None:
    work, hangs = Work(1), asyncio.Event()
    work.go_on.clear()
    take = work.take

    async def hang_when_empty(limit: int) -> Sequence[int]:
        if not work.queue:
            hangs.set()
            await asyncio.Event().wait()
        return await take(limit)

    loop = ClaimLoop[int](
        slots=lambda: 2 - loop.under_way,
        take=hang_when_empty,
        deliver=work.deliver,
        give_back=work.give_back,
        poll=0.01,
    )
    loop.start()
    await hangs.wait()
    asyncio.get_running_loop().call_later(0.1, work.go_on.set)
    await loop.stop(0.5)
    assert work.delivered == [0]


async def test_what_outlasts_the_grace_period_is_cancelled() -> None:
    work = Work(1)
    work.go_on.clear()
    work.loop.start()
    await eventually(lambda: work.loop.under_way == 1)
    await work.loop.stop(0.05)
    assert work.loop.under_way == 0
    assert work.delivered == []


async def test_stopping_again_begins_no_new_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.runtime.claim_loop._TO_END", 0.05)
    work = Work(1)

    async def outlive_a_first_cancellation(unit: int) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    work.loop._deliver = outlive_a_first_cancellation
    work.loop.start()
    await eventually(lambda: work.loop.under_way == 1)
    await work.loop.stop(0.05)
    assert work.loop.under_way == 1
    async with asyncio.timeout(5):
        await work.loop.stop(60.0)
    assert work.loop.under_way == 0


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


async def test_a_settlement_is_written_however_often_the_database_is_away() -> None:
    attempts = 0

    async def write() -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise DatabaseUnavailable("away")

    await persist(write)
    assert attempts == 4
