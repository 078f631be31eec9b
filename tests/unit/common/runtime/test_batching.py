import asyncio
from collections.abc import Sequence

import pytest

from common.runtime.batching import Batcher


class Recorder:
    """Doubles numbers, batch by batch; waits for `go_on`, if it `waits`, in each batch."""

    def __init__(self, *, waits: bool = False, error: Exception | None = None) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.error = error
        if not waits:
            self.go_on.set()

    async def work(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.go_on.wait()
        if self.error:
            raise self.error
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]


async def test_calls_that_come_during_a_batch_make_up_the_next_one() -> None:
    recorder = Recorder(waits=True)
    batcher = Batcher(recorder.work, limit=3)
    calls = [asyncio.create_task(batcher(number)) for number in range(6)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    recorder.go_on.set()
    assert await asyncio.gather(*calls) == [0, 2, 4, 6, 8, 10]
    assert [number for batch in recorder.batches for number in batch] == list(range(6))
    assert max(map(len, recorder.batches)) == 3


async def test_a_returned_exception_reaches_its_caller_alone() -> None:
    batcher = Batcher(Recorder().work)
    good, bad, fine = await asyncio.gather(
        batcher(1), batcher(-1), batcher(2), return_exceptions=True
    )
    assert (good, fine) == (2, 4)
    assert isinstance(bad, ValueError)


async def test_a_raised_exception_reaches_every_caller_as_its_own() -> None:
    batcher = Batcher(Recorder(error=ConnectionError("away")).work)
    errors = await asyncio.gather(*(batcher(n) for n in range(3)), return_exceptions=True)
    assert [str(error) for error in errors] == ["away"] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_cancelled_caller_does_not_cancel_the_batch() -> None:
    recorder = Recorder(waits=True)
    batcher = Batcher(recorder.work)
    leaving, staying = (asyncio.create_task(batcher(number)) for number in (1, 2))
    await asyncio.sleep(0)
    leaving.cancel()
    recorder.go_on.set()
    assert await staying == 4
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_batch_without_callers_is_cancelled_and_the_next_one_is_served() -> None:
    cancelled: list[int] = []
    recorder = Recorder(waits=True)

    async def work(items: Sequence[int]) -> Sequence[int | Exception]:
        try:
            return await recorder.work(items)
        except asyncio.CancelledError:
            cancelled.extend(items)
            raise

    batcher = Batcher(work, cancel_unwanted=True)
    first = [asyncio.create_task(batcher(1))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting, leaving = (asyncio.create_task(batcher(number)) for number in (2, 3))
    await asyncio.sleep(0)
    for task in (*first, leaving):
        task.cancel()
    recorder.go_on.set()
    assert await waiting == 4
    assert cancelled == [1]
    assert recorder.batches == [[1], [2]]


async def test_a_batch_goes_on_while_one_caller_is_left() -> None:
    recorder = Recorder(waits=True)
    batcher = Batcher(recorder.work, cancel_unwanted=True)
    leaving, staying = (asyncio.create_task(batcher(number)) for number in (1, 2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    recorder.go_on.set()
    assert await staying == 4


async def test_closing_waits_for_what_is_under_way() -> None:
    recorder = Recorder(waits=True)
    batcher = Batcher(recorder.work)
    call = asyncio.create_task(batcher(1))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, recorder.go_on.set)
    await batcher.close()
    assert await call == 2


async def test_a_call_in_the_very_step_in_which_a_batch_ends_is_not_left_behind() -> None:
    batcher = Batcher(Recorder().work)
    async with asyncio.timeout(5):
        assert [await batcher(1), await batcher(2), await batcher(3)] == [2, 4, 6]


async def test_when_idle_is_called_once_nothing_is_under_way_even_after_a_failure() -> None:
    recorder, idle = Recorder(waits=True), list[int]()
    batcher = Batcher(
        recorder.work, limit=2, lanes=2, when_idle=lambda: idle.append(len(recorder.batches))
    )
    calls = [asyncio.create_task(batcher(number)) for number in range(6)]
    while len(recorder.batches) < 2:
        await asyncio.sleep(0)
    calls[5].cancel()
    assert idle == []
    recorder.go_on.set()
    await asyncio.gather(*calls, return_exceptions=True)
    await batcher.close()
    assert idle == [3]
    recorder.error = ConnectionError()
    with pytest.raises(ConnectionError):
        await batcher(1)
    assert idle == [3, 4]


async def test_after_a_batch_the_next_one_collects_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, is_over, pauses = asyncio.sleep, asyncio.Event(), list[float]()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await is_over.wait()

    monkeypatch.setattr(asyncio, "sleep", pause)
    recorder = Recorder()
    batcher = Batcher(recorder.work, pause=0.05)
    assert await batcher(1) == 2  # a single one is not held up
    late = []
    for item in (2, 3, 4):
        late.append(asyncio.ensure_future(batcher(item)))
        await step(0)
    is_over.set()
    assert await asyncio.gather(*late) == [4, 6, 8]
    await batcher.close()
    assert set(pauses) == {0.05}
    assert recorder.batches == [[1], [2, 3, 4]]
