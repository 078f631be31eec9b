"""Thousands of forged tokens, and a key server that is down."""

import asyncio
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from devtools.user_pool import Issuer
from devtools.waiting import eventually
from tests.integration.gateway.auth.test_tokens import b64
from tests.support.clients import statuses
from tests.support.cloud import Cloud
from tests.support.key_server import KeyServer

COUNT = int(os.environ.get("TEST_FORGED_TOKENS", "2000"))
CONNECTIONS = 20


@pytest.fixture
async def cloud(
    sqlite_url: str, issuer: Issuer, pool: KeyServer, tmp_path: Path
) -> AsyncIterator[Cloud]:
    async with Cloud(sqlite_url, tmp_path, issuer, pool.url) as cloud:
        yield cloud


def request_with(token: str) -> bytes:
    return f"GET /user HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def forged(issuer: Issuer, count: int) -> Iterator[bytes]:
    """Requests with well-formed tokens, each with a random key id."""
    claims = b64(issuer.claims("somebody"))
    for _ in range(count):
        head = b64({"alg": "RS256", "kid": secrets.token_hex(16)})
        yield request_with(f"{head}.{claims}.{b64(secrets.token_bytes(256))}")


def genuine(issuer: Issuer, count: int) -> Iterator[bytes]:
    """Requests of `count` new users."""
    for _ in range(count):
        yield request_with(issuer.token(secrets.token_hex(8)))


async def ask(cloud: Cloud, requests: list[Iterator[bytes]]) -> Counter[int]:
    answers = await asyncio.gather(*(statuses(cloud.port, some) for some in requests))
    return sum(answers, Counter())


def fetches_since(began: float) -> int:
    """How many more may have been for unknown key ids."""
    return int((time.monotonic() - began) // 30)


async def test_thousands_of_random_key_ids_are_refused_and_cost_one_fetch(
    cloud: Cloud, issuer: Issuer, pool: KeyServer
) -> None:
    gateway = await cloud.gateway()
    assert await statuses(cloud.port, genuine(issuer, 1)) == {200: 1}
    assert pool.asked == 1
    memory = gateway.memory
    began = time.monotonic()
    some = [forged(issuer, COUNT // CONNECTIONS) for _ in range(CONNECTIONS)]
    answers = await ask(cloud, [*some, genuine(issuer, 50)])
    assert answers == {401: COUNT, 200: 50}
    assert 2 <= pool.asked <= 2 + fetches_since(began)
    assert gateway.memory < memory + 30.0

    pool.is_down = True
    answers = await ask(cloud, [forged(issuer, 50), genuine(issuer, 50)])
    assert answers == {401: 50, 200: 50}
    assert 2 <= pool.asked <= 2 + fetches_since(began)
    assert json.loads((await cloud.caller.ask("GET", "/user")).body)["groups"] == ["users"]


async def test_a_gateway_started_without_a_key_server_accepts_tokens_once_it_is_up(
    cloud: Cloud, issuer: Issuer, pool: KeyServer
) -> None:
    pool.is_down = True
    await cloud.gateway()
    started = time.monotonic()
    answers = await ask(cloud, [forged(issuer, 100), genuine(issuer, 20)])
    assert set(answers) == {503}  # genuine ones, too
    assert pool.asked <= 2 + time.monotonic() - started
    pool.is_down = False

    async def has_keys() -> bool:
        return await ask(cloud, [genuine(issuer, 1)]) == {200: 1}

    await eventually(has_keys)
    assert await ask(cloud, [genuine(issuer, 20)]) == {200: 20}
