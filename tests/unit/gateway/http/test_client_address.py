"""Where a request comes from: peers, proxies, and headers of every form."""

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.client_address import TrustedProxies, parse_address
from gateway.http.limits import UNKNOWN

PROXIES = TrustedProxies(
    map(ip_network, ["127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:aa::/48", "::ffff:172.16.0.0/108"])
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:c000:201]:443", "192.0.2.1"),
    ],
)
def test_an_address_is_read_in_all_its_forms(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.256",
        "1:2:3",
        "[::1]x",
        "[]",
        "::1::",
        "１.2.3.4",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        pytest.param("192.0.2.1", [], "192.0.2.1", id="direct"),
        pytest.param("192.0.2.1", ["198.51.100.1"], "192.0.2.1", id="spoofed by a client"),
        pytest.param("127.0.0.1", [], "127.0.0.1", id="a proxy that reports nothing"),
        pytest.param("127.0.0.1", ["192.0.2.1"], "192.0.2.1", id="one proxy"),
        pytest.param("127.0.0.1", ["192.0.2.1, 10.1.2.3"], "192.0.2.1", id="two proxies"),
        pytest.param("::ffff:127.0.0.1", ["192.0.2.1"], "192.0.2.1", id="mapped proxy"),
        pytest.param("172.16.0.9", ["192.0.2.1"], "192.0.2.1", id="mapped network"),
        pytest.param("2001:db8:aa::1", ["[2001:db8::1]:80"], "2001:db8::1", id="IPv6"),
        pytest.param("127.0.0.1", ["1.1.1.1, 192.0.2.1"], "192.0.2.1", id="spoofed left part"),
        pytest.param("127.0.0.1", ["1.1.1.1", "192.0.2.1 "], "192.0.2.1", id="two headers"),
        pytest.param("127.0.0.1", ["192.0.2.1,, ,10.0.0.1,"], "192.0.2.1", id="empty elements"),
        pytest.param("127.0.0.1", ["10.0.0.2, 10.0.0.1"], "10.0.0.2", id="only proxies"),
        pytest.param("127.0.0.1", ["192.0.2.1, unknown, 10.0.0.1"], "10.0.0.1", id="garbage"),
        pytest.param("127.0.0.1", ["192.0.2.1, " + "9" * 99], "127.0.0.1", id="over-long"),
        pytest.param("127.0.0.1", ["x, 192.0.2.1"], "192.0.2.1", id="garbage left of the client"),
        pytest.param(None, ["192.0.2.1"], "unknown", id="no peer"),
        pytest.param("", ["192.0.2.1"], "unknown", id="a Unix socket"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_trusted_proxy(
    peer: str | None, forwarded_for: list[str], client: str
) -> None:
    assert PROXIES.client(peer, forwarded_for).text == client


def test_limits_count_the_client_and_not_the_proxy() -> None:
    direct = PROXIES.client("2001:db8::1")
    assert PROXIES.client("127.0.0.1", ["2001:db8::2"]).caller == direct.caller
    assert PROXIES.client("127.0.0.1", ["192.0.2.1"]).caller != PROXIES.client("127.0.0.1").caller
    assert PROXIES.client(None).caller == UNKNOWN


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("10.9.9.9", True), ("::ffff:10.0.0.1", True), ("11.0.0.1", False), (None, False)],
)
def test_peers_are_trusted_by_network(peer: str | None, trusted: bool) -> None:
    assert PROXIES.trusts(peer) is trusted
    assert TrustedProxies([]).trusts(peer) is False


@settings(max_examples=50)
@given(st.text(max_size=200), st.lists(st.text(max_size=200), max_size=3))
def test_no_header_is_an_error(peer: str, forwarded_for: list[str]) -> None:
    for sender in (peer, "127.0.0.1"):
        assert PROXIES.client(sender, forwarded_for).caller.startswith("address:")


def test_of_ten_thousand_elements_only_the_last_are_read() -> None:
    proxies = TrustedProxies([ip_network("10.0.0.0/8")])
    header = ",".join(str(IPv4Address("10.0.0.0") + number) for number in range(10_000))
    proxies.client("10.0.0.1", [header])
    proxies.client("10.0.0.1", ["," * 60_000 + header[:20_000]])
    assert proxies._resolve.cache_info().misses < 70


def test_hops_beyond_the_limit_are_not_read() -> None:
    proxies = ["10.0.0.1"] * 32
    assert PROXIES.client("127.0.0.1", [", ".join(["192.0.2.1", *proxies[1:]])]).text == "192.0.2.1"
    assert PROXIES.client("127.0.0.1", [", ".join(["192.0.2.1", *proxies])]).text == "10.0.0.1"
    assert PROXIES.client("127.0.0.1", ["192.0.2.1", *proxies]).text == "10.0.0.1"
