"""Wrong credentials, by address and by account."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from gateway.auth.throttle import Throttle, account_key
from gateway.http.limits import LimitExceeded
from tests.support.clock import Clock


class WrongPassword(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(10, 300.0, clock=clock)


def fail(throttle: Throttle, *keys: str, times: int = 1) -> None:
    for _ in range(times):
        for key in keys:
            throttle.check(key)
            throttle.record(key)


def test_after_ten_failures_a_key_is_refused_and_others_are_not(throttle: Throttle) -> None:
    fail(throttle, "alice", times=10)
    with pytest.raises(LimitExceeded, match="10 wrong passwords in 300 s"):
        throttle.check("alice")
    throttle.check("bob")
    assert throttle.refused == 1


def test_a_key_is_refused_until_its_oldest_failure_leaves_the_window(
    throttle: Throttle, clock: Clock
) -> None:
    for _ in range(10):
        fail(throttle, "alice")
        clock.now += 20.0
    with pytest.raises(LimitExceeded) as caught:
        throttle.check("alice")
    assert caught.value.retry_after == 100.0
    clock.now += 100.0
    fail(throttle, "alice")
    with pytest.raises(LimitExceeded) as caught:
        throttle.check("alice")
    assert caught.value.retry_after == 20.0


@pytest.mark.parametrize("start", [0.1, 1e5 + 1 / 3, 12345.678901])
async def test_the_moment_in_which_a_failure_leaves_the_window_is_one_for_all_checks(
    throttle: Throttle, clock: Clock, start: float
) -> None:
    clock.now = start
    fail(throttle, "alice", times=10)
    for difference in (-1e-9, 0.0, 1e-9):
        clock.now = start + 300.0 + difference
        with suppress(LimitExceeded):
            throttle.check("alice")
            async with asyncio.timeout(10), throttle.attempt("alice", failures=WrongPassword):
                pass


def test_more_failures_than_the_limit_count_from_the_newest(
    throttle: Throttle, clock: Clock
) -> None:
    """Checks that were under way when the limit was reached still record their failures."""
    for _ in range(30):
        throttle.record("alice")
        clock.now += 1.0
    with pytest.raises(LimitExceeded) as caught:
        throttle.check("alice")
    assert caught.value.retry_after == 290.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Alice@Example.com", "aLICE@eXAMPLE.COM", True),
        ("STRASSE", "straße", True),
        ("alice", "alicia", False),
        ("a" * 1000, "A" * 2_000_000, True),
        ("\ud800", "\ud801", False),
    ],
)
def test_accounts_are_compared_without_regard_to_case_and_have_keys_of_one_size(
    one: str, other: str, same: bool
) -> None:
    assert (account_key(one) == account_key(other)) is same
    assert len(account_key(one)) == 16


class TestAttempts:
    async def test_only_wrong_credentials_count(self, throttle: Throttle) -> None:
        for error in (ConnectionError, asyncio.CancelledError):
            with pytest.raises(error):
                async with throttle.attempt("alice", failures=WrongPassword):
                    raise error
        async with throttle.attempt("alice", failures=WrongPassword):
            pass
        assert len(throttle) == 0
        for _ in range(10):
            with pytest.raises(WrongPassword):
                async with throttle.attempt("alice", failures=(WrongPassword, KeyError)):
                    raise WrongPassword
        with pytest.raises(LimitExceeded):
            async with throttle.attempt("alice", failures=WrongPassword):
                pytest.fail("refused attempts do not start")
        assert not throttle._attempts

    async def test_many_at_once_are_no_way_around_the_limit(self, throttle: Throttle) -> None:
        tried = 0

        async def guess() -> None:
            nonlocal tried
            async with throttle.attempt("alice", failures=WrongPassword):
                tried += 1
                await asyncio.sleep(0.001)
                raise WrongPassword

        outcomes = await asyncio.gather(*(guess() for _ in range(200)), return_exceptions=True)
        assert tried == 10
        assert Counter(map(type, outcomes)) == {WrongPassword: 10, LimitExceeded: 190}
        assert not throttle._attempts

    async def test_right_credentials_are_never_refused_for_their_number(
        self, throttle: Throttle
    ) -> None:
        fail(throttle, "alice", times=8)
        most = running = 0

        async def log_in() -> None:
            nonlocal most, running
            async with throttle.attempt("alice", failures=WrongPassword):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(log_in() for _ in range(50)))
        assert most == 2
        assert not throttle._attempts

    async def test_a_waiting_attempt_that_is_cancelled_leaves_the_others_alone(
        self, throttle: Throttle
    ) -> None:
        fail(throttle, "alice", times=9)
        gate = asyncio.Event()

        async def log_in() -> None:
            async with throttle.attempt("alice", failures=WrongPassword):
                await gate.wait()

        first, second, third = (asyncio.ensure_future(log_in()) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        gate.set()
        outcomes = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            asyncio.CancelledError,
            type(None),
        ]
        assert not throttle._attempts


def test_any_number_of_keys_takes_bounded_memory_and_the_newest_are_kept(clock: Clock) -> None:
    throttle = Throttle(2, 300.0, capacity=1000, clock=clock)
    for number in range(50_000):
        throttle.record(account_key(str(number)))
    assert len(throttle) == 1000
    newest = account_key(str(number))
    throttle.record(newest)
    with pytest.raises(LimitExceeded):
        throttle.check(newest)


def test_keys_are_forgotten_after_the_window_as_others_fail(
    throttle: Throttle, clock: Clock
) -> None:
    fail(throttle, *map(str, range(100)))
    clock.now += 300.0
    fail(throttle, *(f"new {number}" for number in range(100)))
    assert len(throttle) == 100
