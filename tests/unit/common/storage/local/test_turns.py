"""Turns: one at a time, but nobody waits long."""

import threading
from concurrent.futures import ThreadPoolExecutor

from common.storage.local.turns import Turns


def test_quick_calls_run_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def call(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        sum(range(1000))
        inside -= 1
        return number

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda number: turns.take(call, number), range(200)))
    assert results == list(range(200))
    assert most == 1


def test_a_slow_call_holds_nobody_up_and_an_error_gives_the_turn_back() -> None:
    turns, go_on = Turns(), threading.Event()
    with ThreadPoolExecutor(3) as threads:
        slow = threads.submit(turns.take, go_on.wait)
        beside = [threads.submit(turns.take, int, text) for text in ("1", "none")]
        assert beside[0].result(10) == 1
        assert isinstance(beside[1].exception(10), ValueError)
        assert not slow.done()
        go_on.set()
        assert slow.result(10)
    assert turns._turn.acquire(blocking=False)
