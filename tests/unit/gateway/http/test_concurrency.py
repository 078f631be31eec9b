"""Requests that one caller may have under way at once."""

from contextlib import ExitStack

import pytest

from gateway.http.concurrency import ConcurrencyLimit
from gateway.http.limits import LimitExceeded, user_caller

ALICE, BOB = user_caller("alice"), user_caller("bob")


def test_requests_beyond_the_limit_are_refused_and_other_callers_are_not() -> None:
    limit = ConcurrencyLimit(2)
    with limit.admit(ALICE), limit.admit(ALICE), limit.admit(BOB):
        with pytest.raises(LimitExceeded, match="2 requests at once") as caught:
            limit.admit(ALICE).__enter__()
        assert caught.value.retry_after > 0
        assert (len(limit), limit.refused) == (2, 1)
    with limit.admit(ALICE):
        assert len(limit) == 1


def test_a_request_that_fails_is_over_and_leaves_no_memory() -> None:
    limit = ConcurrencyLimit(1)
    for _ in range(3):
        with pytest.raises(ConnectionError), limit.admit(ALICE):
            raise ConnectionError
    assert len(limit) == 0


def test_zero_is_no_limit() -> None:
    limit = ConcurrencyLimit(0, "event streams")
    with ExitStack() as requests:
        for _ in range(1000):
            requests.enter_context(limit.admit(ALICE))
        assert len(limit) == 1
    assert (len(limit), limit.refused) == (0, 0)
