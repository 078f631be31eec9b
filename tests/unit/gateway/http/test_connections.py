"""Which connections give way: by address, by unfinished heads, by file handles."""

import asyncio
from ipaddress import ip_network
from typing import Any, cast

import pytest
import structlog

from gateway.http import connections as module
from gateway.http.client_address import TrustedProxies
from gateway.http.connections import Connections
from gateway.settings import ConnectionLimits

HANDLES = 64
KEPT = HANDLES - HANDLES // 4
"""Handles from which on connections give way."""


class FakeConnection:
    """A connection from an address, on a file handle."""

    def __init__(self, limited: Connections, address: str = "192.0.2.1", handle: int = 9) -> None:
        self.in_head = True
        self.is_closed = False
        self.address = address
        self.handle = handle
        limited.add(self, cast("asyncio.BaseTransport", self))

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else (self.address, 1)

    def fileno(self) -> int:
        return self.handle

    def force_close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def few_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (HANDLES, HANDLES))
    monkeypatch.setattr(module, "_LOG_EVERY", 0.0)


@pytest.fixture
def limited() -> Connections:
    """Three connections of an address, two unfinished heads among them."""
    limits = ConnectionLimits(per_address=3, heads_per_address=2)
    return Connections(limits, TrustedProxies([ip_network("10.0.0.0/8")]))


def closed(connections: list[FakeConnection]) -> list[int]:
    return [place for place, connection in enumerate(connections) if connection.is_closed]


def answered(limited: Connections, address: str = "192.0.2.1") -> FakeConnection:
    """A connection that is kept alive after a request."""
    connection = FakeConnection(limited, address)
    connection.in_head = False
    limited.begin(connection)
    limited.end(connection)
    return connection


async def test_beyond_the_limit_of_an_address_its_first_idle_connection_gives_way(
    limited: Connections,
) -> None:
    busy, *others = [answered(limited) for _ in range(3)]
    limited.begin(busy)
    elsewhere = answered(limited, "192.0.2.2")
    new = answered(limited)
    assert closed([busy, *others, new, elsewhere]) == [1]


async def test_an_address_whose_connections_are_all_busy_gets_no_further_one(
    limited: Connections,
) -> None:
    busy = [answered(limited) for _ in range(3)]
    for connection in busy:
        limited.begin(connection)
    assert closed([*busy, answered(limited)]) == [3]


async def test_the_oldest_unfinished_head_of_an_address_gives_way(limited: Connections) -> None:
    heads = [FakeConnection(limited) for _ in range(3)]
    assert closed(heads) == [0]


async def test_the_head_of_a_later_request_counts_as_well(limited: Connections) -> None:
    kept = answered(limited)
    heads = [FakeConnection(limited) for _ in range(2)]
    kept.in_head = True
    limited.check_heads(kept)
    assert closed([kept, *heads]) == [0]


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3"])
async def test_a_trusted_proxy_has_no_limit(limited: Connections, address: str) -> None:
    assert closed([FakeConnection(limited, address) for _ in range(9)]) == []


async def test_when_handles_run_short_the_longest_idle_connections_give_way(
    limited: Connections,
) -> None:
    first, second, third = (answered(limited, f"192.0.2.{number}") for number in range(3))
    limited.begin(first)
    limited.end(first)
    with structlog.testing.capture_logs() as events:
        new = FakeConnection(limited, "192.0.2.9", handle=KEPT + 1)
        await asyncio.sleep(0.01)
    assert closed([first, second, third, new]) == [1, 2]
    assert events[0]["reason"] == "handles"
    assert events[0]["count"] == 2


async def test_protected_connections_make_others_give_way_and_never_do(
    limited: Connections,
) -> None:
    peer = limited.protected()
    protected = [FakeConnection(peer) for _ in range(9)]
    idle = answered(limited)
    FakeConnection(peer, handle=KEPT)
    FakeConnection(limited, "192.0.2.9", handle=KEPT)
    assert closed(protected) == []
    assert idle.is_closed


async def test_a_connection_for_which_no_handle_can_be_had_is_closed(limited: Connections) -> None:
    new = FakeConnection(limited, handle=HANDLES - 1)
    assert new.is_closed


async def test_nothing_is_kept_of_connections_that_are_lost(limited: Connections) -> None:
    connections = [answered(limited) for _ in range(3)]
    for connection in connections:
        limited.remove(connection)
        limited.end(connection)
        limited.remove(connection)
    assert not any((limited._all, limited._idle, limited._callers, limited._of_caller))
