"""The event loop gets the interpreter back soon, also beside threads that compute."""

import asyncio
import sys
import threading

import pytest

from common.runtime.computation import USUAL_INTERVAL, compute_in_thread


async def test_the_interpreter_is_given_up_sooner_while_anything_is_computed() -> None:
    begun, may_end = threading.Barrier(3), [threading.Event(), threading.Event()]

    def call(number: int) -> float:
        begun.wait(60)
        assert may_end[number].wait(60)
        return sys.getswitchinterval()

    running = [asyncio.create_task(compute_in_thread(call, number)) for number in (0, 1)]
    await asyncio.to_thread(begun.wait, 60)
    assert sys.getswitchinterval() < USUAL_INTERVAL
    may_end[0].set()
    assert await running[0] < USUAL_INTERVAL
    assert sys.getswitchinterval() < USUAL_INTERVAL
    may_end[1].set()
    await running[1]
    assert sys.getswitchinterval() == pytest.approx(USUAL_INTERVAL)


async def test_an_error_is_raised_and_ends_it() -> None:
    with pytest.raises(ValueError, match="none"):
        await compute_in_thread(int, "none")
    assert sys.getswitchinterval() == pytest.approx(USUAL_INTERVAL)
