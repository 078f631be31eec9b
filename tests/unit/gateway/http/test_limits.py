"""Whom limits count."""

from ipaddress import ip_address

import pytest

from gateway.http.limits import UNKNOWN, LimitExceeded, Overloaded, address_caller, user_caller


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_an_ipv6_client_counts_by_its_64_and_an_ipv4_client_by_its_address(
    one: str, other: str, same: bool
) -> None:
    assert (address_caller(ip_address(one)) == address_caller(ip_address(other))) is same


def test_a_user_named_like_an_address_is_not_counted_as_that_address() -> None:
    address = ip_address("192.0.2.1")
    names = ["192.0.2.1", address_caller(address), "unknown", UNKNOWN]
    assert {user_caller(name) for name in names}.isdisjoint({address_caller(address), UNKNOWN})


def test_an_overload_is_an_exceeded_limit_with_its_sentence_and_its_delay() -> None:
    error = Overloaded("30 s of waiting (zip)", 2.0)
    assert isinstance(error, LimitExceeded)
    assert (str(error), error.limit, error.retry_after) == (
        "Limit exceeded: 30 s of waiting (zip)",
        "30 s of waiting (zip)",
        2.0,
    )
