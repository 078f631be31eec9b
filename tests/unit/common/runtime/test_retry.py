import asyncio
from collections.abc import Awaitable, Callable

import pytest

from common.runtime.retry import full_jitter, retry
from tests.support.clock import only_sleep_takes_time


class Away(Exception):
    pass


class Refused(Away):
    pass


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Raises these errors one after the other, then succeeds."""
    left = list(errors)

    async def operation() -> str:
        if left:
            raise left.pop(0)
        return "result"

    return operation


async def test_an_operation_is_repeated_until_it_succeeds_and_each_failure_is_reported() -> None:
    errors = [Away(number) for number in range(4)]
    seen: list[Exception] = []
    result = await retry(
        failing(*errors), on=Away, first=0.001, cap=0.01, least=0.0, on_retry=seen.append
    )
    assert (result, seen) == ("result", errors)


@pytest.mark.parametrize("error", [Refused(), ValueError()])
async def test_an_error_that_another_attempt_cannot_mend_is_raised_at_once(
    error: Exception,
) -> None:
    with pytest.raises(type(error)):
        await retry(failing(error), on=Away, unless=Refused, first=60.0, cap=60.0)


async def test_past_its_deadline_the_last_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = only_sleep_takes_time(monkeypatch)
    began = clock.now
    errors = [Away(number) for number in range(10_000)]
    seen: list[Exception] = []
    with pytest.raises(Away) as raised:
        await retry(
            failing(*errors), on=Away, first=0.01, cap=0.01, within=5.0, on_retry=seen.append
        )
    assert raised.value is errors[len(seen)]
    assert len(seen) > 5.0 / 0.07
    assert clock.now - began == pytest.approx(5.0)


async def test_a_pause_ends_at_the_deadline_with_a_last_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = only_sleep_takes_time(monkeypatch)
    began = clock.now
    result = await retry(failing(Away()), on=Away, first=0.0, cap=0.0, least=60.0, within=5.0)
    assert (result, clock.now - began) == ("result", 5.0)


async def test_a_pause_can_be_cancelled() -> None:
    failed = asyncio.Event()
    retrying = retry(
        failing(Away()), on=Away, first=0.0, cap=0.0, least=60.0, on_retry=lambda _: failed.set()
    )
    task = asyncio.create_task(retrying)
    await failed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_full_jitter_doubles_up_to_its_cap() -> None:
    for attempt, most in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 4.0), (10_000, 4.0)):
        waits = [full_jitter(attempt, first=0.5, cap=4.0) for _ in range(300)]
        assert 0.0 <= min(waits) < most / 4
        assert most * 3 / 4 < max(waits) <= most
