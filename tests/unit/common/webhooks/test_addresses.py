"""Webhooks lead to public addresses, however an address is spelled."""

import pytest

from common.webhooks.addresses import ForbiddenAddress, check_address, check_host

PUBLIC = [
    "93.184.215.14",
    "2606:2800:220:1:248:1893:25c8:1946",
    "::ffff:93.184.215.14",
    "64:ff9b::93.184.215.14",
    "2002:5db8:d70e::1",  # 6to4 of 93.184.215.14
]
PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",  # metadata of a cloud
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:192.0.0.192",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2001:db8::1",
    "2001::1",
    "2002:7f00:1::1",  # 6to4 of 127.0.0.1
    "3fff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
SPELLINGS = [
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "127.0.0.1.",
    "1",
    "0",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    check_address(address)
    check_host(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenAddress, match="is not a public one"):
        check_address(address)
    with pytest.raises(ForbiddenAddress, match="is not a public one"):
        check_host(address)


@pytest.mark.parametrize("host", SPELLINGS)
def test_other_spellings_of_an_address_are_refused(host: str) -> None:
    with pytest.raises(ForbiddenAddress, match="not the usual spelling"):
        check_host(host)


@pytest.mark.parametrize("host", ["example.org", "1.example.org", "0x7f.example", "a1.b2"])
def test_a_name_is_judged_when_it_is_resolved(host: str) -> None:
    check_host(host)
