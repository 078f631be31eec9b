"""Refusals that wait before they are answered."""

import pytest

from gateway.http.limits import user_caller
from gateway.http.tarpit import Tarpit
from tests.support.clock import Clock

ALICE, BOB = user_caller("alice"), user_caller("bob")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def delays(tarpit: Tarpit, number: int) -> list[float]:
    return [round(tarpit.delay(ALICE), 3) for _ in range(number)]


def test_a_hundred_refusals_are_answered_at_once_and_further_ones_one_after_the_other(
    clock: Clock,
) -> None:
    tarpit = Tarpit(clock)
    assert delays(tarpit, 103) == [0.0] * 100 + [0.01, 0.02, 0.03]
    assert tarpit.delay(BOB) == 0.0


def test_no_answer_waits_for_longer_than_a_second(clock: Clock) -> None:
    assert max(delays(Tarpit(clock), 1_000)) == 1.0


def test_who_is_refused_no_more_often_than_that_does_not_wait(clock: Clock) -> None:
    tarpit = Tarpit(clock)
    delays(tarpit, 101)
    for _ in range(10):
        clock.now += 0.02
        assert tarpit.delay(ALICE) == 0.0
    clock.now += 2.0
    assert delays(tarpit, 101) == [0.0] * 100 + [0.01]


def test_callers_are_forgotten_as_others_are_refused(clock: Clock) -> None:
    tarpit = Tarpit(clock)
    for number in range(1_000):
        tarpit.delay(user_caller(f"user-{number}"))
        clock.now += 0.1
    assert len(tarpit) < 20
