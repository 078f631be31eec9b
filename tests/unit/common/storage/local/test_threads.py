"""Serial threads run one call at a time, but no call waits long for a slow one."""

import threading

from common.storage.local.threads import Threads


def test_quick_calls_run_one_at_a_time() -> None:
    inside, most = 0, 0

    def call(number: int) -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        sum(range(1000))
        inside -= 1
        return number

    threads = Threads(8, serial=True)
    jobs = [threads.submit(call, number) for number in range(200)]
    assert [job.result(10) for job in jobs] == list(range(200))
    assert most == 1


def test_a_slow_call_delays_no_other_and_an_error_releases_the_lock() -> None:
    threads, go_on = Threads(3, serial=True), threading.Event()
    slow = threads.submit(go_on.wait)
    beside = [threads.submit(int, text) for text in ("1", "none")]
    assert beside[0].result(10) == 1
    assert isinstance(beside[1].exception(10), ValueError)
    assert not slow.done()
    go_on.set()
    assert slow.result(10)
    assert threads._lock is not None
    assert threads._lock.acquire(blocking=False)
