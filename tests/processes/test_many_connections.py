"""Clients that hold connections: unfinished heads, and idle ones where handles run short."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from devtools.waiting import eventually
from tests.support import clients
from tests.support.clients import Client, connected
from tests.support.cloud import Cloud, on_sqlite

GROWTH = 50.0
"""MiB that unfinished heads may take."""

HANDLES = 256
IDLE = 1_000


@pytest.fixture(autouse=True)
def may_open_many_files() -> Iterator[None]:
    with clients.many_files(IDLE + 500):
        yield


async def never_end_a_head(client: Client) -> None:
    """Send header after header, as long as the gateway takes them."""
    with contextlib.suppress(ConnectionError):
        await client.send(b"GET / HTTP/1.1\r\nHost: gateway\r\n")
        for number in range(126):
            await client.send(b"X-%d: %b\r\n" % (number, b"x" * 32_000))


async def keep_alive(client: Client) -> None:
    await client.send(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n")
    assert (await client.read()).startswith(b"HTTP/1.1 200 ")


@on_sqlite
async def test_heads_that_never_end_take_little_memory(cloud: Cloud) -> None:
    gateway = await cloud.gateway()
    async with connected(cloud.port, cloud.token, [keep_alive], 50):
        memory = gateway.memory
    async with connected(cloud.port, cloud.token, [never_end_a_head], 200) as stuck:
        assert gateway.memory < memory + GROWTH
        assert (await cloud.caller.ask("GET", "/")).status == 200
        ends = await asyncio.gather(*(client.read_all() for client in stuck))
    refused = {end[9:12] for end in ends}  # no answer where it met what was still being sent
    assert b"431" in refused
    assert refused <= {b"431", b""}


@on_sqlite
async def test_idle_connections_give_way_to_new_ones_when_handles_run_short(cloud: Cloud) -> None:
    few = ("sh", "-c", f'ulimit -n {HANDLES}; exec "$0" "$@"')
    gateway = await cloud.gateway(prefix=few)
    async with connected(cloud.port, cloud.token, [keep_alive], IDLE) as kept:
        assert (await cloud.caller.ask("GET", "/")).status == 200
        assert (await cloud.caller.upload("data/x", "f", b"content")).status == 201
        assert await kept[0].read() == b""  # the longest idle one
        await keep_alive(kept[-1])
        closed = await gateway.metric('opencloud_connections_closed_total{reason="handles"}')
        assert closed > IDLE - HANDLES
        assert gateway.files < HANDLES
    await eventually(lambda: '"event":"connections.closed"' in gateway.output)
    assert "request.failed" not in gateway.output
