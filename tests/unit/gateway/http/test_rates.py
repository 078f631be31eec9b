"""Requests of one caller in a window of time."""

import pytest

from gateway.http import rates as rates_module
from gateway.http.limits import LimitExceeded, user_caller
from gateway.http.rates import RateLimit, Standing
from tests.support.clock import Clock

ALICE, BOB = user_caller("alice"), user_caller("bob")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def three_per_minute(clock: Clock) -> RateLimit:
    return RateLimit(3, 60, clock=clock)


def test_the_headers_are_those_of_the_draft() -> None:
    rates = RateLimit(600, 60)
    assert rates.take(ALICE).headers() == {
        "RateLimit-Policy": '"default";q=600;w=60',
        "RateLimit": '"default";r=599;t=60',
    }


def test_a_window_starts_with_the_first_request_and_ends_after_its_time(clock: Clock) -> None:
    rates = three_per_minute(clock)
    assert rates.take(ALICE) == Standing(3, 60, 2, 60)
    clock.now += 59.5
    assert rates.take(ALICE) == Standing(3, 60, 1, 1)
    clock.now += 0.5
    assert rates.take(ALICE) == Standing(3, 60, 2, 60)


def test_beyond_the_limit_a_caller_is_refused_until_its_window_ends(clock: Clock) -> None:
    rates = three_per_minute(clock)
    for _ in range(3):
        rates.take(ALICE)
    clock.now += 20.0
    with pytest.raises(LimitExceeded, match="3 requests in 60 s") as caught:
        rates.take(ALICE)
    assert caught.value.retry_after == 40.0
    assert rates.standing(ALICE) == Standing(3, 60, 0, 40)
    assert rates.take(BOB).remaining == 2
    assert rates.refused == 1
    clock.now += 40.0
    assert rates.take(ALICE).remaining == 2


def test_asking_for_the_standing_counts_no_request(clock: Clock) -> None:
    rates = three_per_minute(clock)
    assert rates.standing(ALICE) == Standing(3, 60, 3, 60)
    rates.take(ALICE)
    clock.now += 10.0
    assert rates.standing(ALICE) == rates.standing(ALICE) == Standing(3, 60, 2, 50)
    clock.now += 50.0
    assert rates.standing(ALICE) == Standing(3, 60, 3, 60)


def test_callers_whose_window_has_ended_are_forgotten_a_few_at_a_time(clock: Clock) -> None:
    rates = three_per_minute(clock)
    for number in range(100):
        rates.take(user_caller(str(number)))
    clock.now += 30.0
    rates.take(ALICE)
    assert len(rates) == 101
    clock.now += 30.0
    rates.take(ALICE)
    assert len(rates) == 99
    for number in range(100):
        rates.take(user_caller(f"new {number}"))
    assert len(rates) == 101


def test_a_caller_that_comes_back_is_not_forgotten_with_those_of_its_first_window(
    clock: Clock,
) -> None:
    rates = three_per_minute(clock)
    for caller in (ALICE, BOB):
        rates.take(caller)
    clock.now += 60.0
    rates.take(ALICE)
    rates.take(ALICE)
    assert rates.standing(ALICE).remaining == 1
    assert len(rates) == 1


def test_callers_in_great_number_push_the_oldest_out(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates_module, "_CAPACITY", 50)
    rates = three_per_minute(clock)
    for number in range(1_000):
        rates.take(user_caller(str(number)))
        assert rates.standing(user_caller(str(number))).remaining == 2
    assert len(rates) == 50
