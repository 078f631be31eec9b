"""Which addresses a webhook may lead to: public ones only.

An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4) leads where that one leads.
"""

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_RESERVED: Final = (IPv4Network("192.0.0.0/24"), IPv6Network("3fff::/20"))
"""Special-purpose addresses (IANA's registries, RFC 6890 and 9637) that `ipaddress` takes for
public ones in some versions of Python; clouds have metadata at 192.0.0.192."""

_NAT64: Final = IPv6Network("64:ff9b::/96")
_NUMERIC: Final = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)(\.(0[xX][0-9a-fA-F]*|[0-9]+))*\.?")


class ForbiddenAddress(OSError):
    """A webhook must not lead there; the message is a clause that names the address."""


def check_address(text: str) -> None:
    """Raise `ForbiddenAddress` unless this numeric address, as resolvers write it, is public."""
    address = ip_address(text.partition("%")[0])
    if not _is_public(address):
        raise ForbiddenAddress(f"the address {address} is not a public one")


def check_host(host: str) -> None:
    """Raise `ForbiddenAddress` for a host that is spelled as an address which is not public.

    Decimal, octal, hexadecimal and shortened spellings, which the system's resolver understands,
    are refused altogether. A name is judged when it is resolved.
    """
    if ":" in host or _is_dotted(host):
        check_address(host)
    elif _NUMERIC.fullmatch(host):
        raise ForbiddenAddress(f"{host} is not the usual spelling of an address")


def _is_dotted(host: str) -> bool:
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host)) == host
    except OSError:
        return False


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is not None:
            return _is_public(carried)
        if address not in _GLOBAL_UNICAST:
            return False
    if any(address in network for network in _RESERVED):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 address (RFC 4291, 6052, 3056)."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
