"""Where a request comes from: the connection's peer or, behind proxies, what they report."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from gateway.http.limits import UNKNOWN, Caller, address_caller

_LONGEST: Final = 80
"""Characters of an IPv6 address with brackets, zone and port. Longer texts are no addresses."""

_CACHED: Final = 4096

_MOST_HOPS: Final = 32
"""Elements of `X-Forwarded-For` that are read, from the right: more than proxies in a row."""

_MAPPED_PREFIX: Final = 96
"""Length of ::ffff:0:0/96, the IPv4 addresses as IPv6 sockets show them (RFC 4291, 2.5.5.2)."""


@dataclass(frozen=True, slots=True)
class ClientAddress:
    """An address as logs show it, and whom limits count for it."""

    text: str
    caller: Caller


_NOWHERE: Final = ClientAddress("unknown", UNKNOWN)


class TrustedProxies:
    """The networks whose `X-Forwarded-…` headers are believed."""

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(map(_unmapped_network, networks))
        self._resolve = lru_cache(_CACHED)(self._resolve_anew)

    def trusts(self, peer: str | None) -> bool:
        known = self._resolve(peer or "")
        return known is not None and known[1]

    def client(self, peer: str | None, forwarded_for: Sequence[str] = ()) -> ClientAddress:
        """The client behind `peer`; `forwarded_for` are the values of all `X-Forwarded-For`.

        It is the right-most address that is no trusted proxy: those to the left of it are only
        the client's claim. An element that is no address ends the search at the proxy that
        reported it.
        """
        known = self._resolve(peer or "")
        if known is None:
            return _NOWHERE
        address, trusted = known
        if trusted and forwarded_for:
            for element in _from_the_right(forwarded_for):
                known = self._look_up(element)
                if known is None:
                    break
                address, trusted = known
                if not trusted:
                    break
        return address

    def _look_up(self, text: str) -> tuple[ClientAddress, bool] | None:
        return self._resolve(text) if len(text) <= _LONGEST else None

    def _resolve_anew(self, text: str) -> tuple[ClientAddress, bool] | None:
        """The address that a text spells, and whether it is a trusted proxy's."""
        try:
            address = parse_address(text)
        except ValueError:
            return None
        client = ClientAddress(str(address), address_caller(address))
        return client, any(address in network for network in self._networks)


def parse_address(text: str) -> IPv4Address | IPv6Address:
    """An address without its port, brackets and zone; IPv4 where it is mapped into IPv6.

    Raises `ValueError`.
    """
    if text.startswith("["):
        text, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError("text after the brackets")
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _unmapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_PREFIX:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network


def _from_the_right(values: Sequence[str]) -> Iterator[str]:
    """The last `_MOST_HOPS` elements of a list header, the last first, without empty ones."""
    hops = 0
    for value in reversed(values):
        end = len(value)
        while end >= 0 and hops < _MOST_HOPS:
            start = value.rfind(",", 0, end) + 1
            if element := value[start:end].strip():
                yield element
            end = start - 1
            hops += 1
