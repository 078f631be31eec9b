"""Thousands of wrong tokens, keys and passwords, and what else is hostile about a caller."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from deploy.sandbox import aws
from deploy.sandbox.cognito import USER, create_user_pool
from devtools.services import Process
from devtools.user_pool import INTERNAL_KEY, Issuer
from gateway.http.refusals import WRONG_TOKENS
from gateway.http.request_log import WHOLE
from tests.support.clients import statuses
from tests.support.cloud import Cloud
from tests.support.key_server import KeyServer

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("TEST_WRONG_CREDENTIALS", "1000"))
TOKENS = WRONG_TOKENS + COUNT
CONNECTIONS = 20
CLIENT = "203.0.113.9"


@pytest.fixture
async def cloud(
    sqlite_url: str, issuer: Issuer, key_server: KeyServer, tmp_path: Path
) -> AsyncIterator[Cloud]:
    async with Cloud(sqlite_url, tmp_path, issuer, key_server.url) as cloud:
        yield cloud


def request(line: str, *headers: str, body: str = "", host: str = "gateway") -> bytes:
    head = "\r\n".join((line, f"Host: {host}", f"X-Forwarded-For: {CLIENT}", *headers))
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def with_token(token: str) -> bytes:
    return request("GET /user HTTP/1.1", f"Authorization: Bearer {token}")


def update(key: str) -> bytes:
    body = json.dumps({"job_id": 1, "status": "running"})
    kind = "Content-Type: application/json"
    return request("PUT /_job_status HTTP/1.1", f"x-api-key: {key}", kind, body=body)


def log_in(path: str, password: str, *headers: str) -> bytes:
    body = json.dumps({"email": USER.email, "password": password})
    return request(f"POST {path} HTTP/1.1", "Content-Type: application/json", *headers, body=body)


async def flood(cloud: Cloud, request: bytes, times: int = COUNT) -> Counter[int]:
    """Send it so many times, over many connections at once."""
    few = [request] * (times // CONNECTIONS)
    answers = await asyncio.gather(*(statuses(cloud.port, few) for _ in range(CONNECTIONS)))
    return sum(answers, Counter())


async def ask(cloud: Cloud, *requests: bytes) -> list[int]:
    return [status for one in requests for status in await statuses(cloud.port, [one])]


async def refused(gateway: Process, reason: str) -> float:
    return await gateway.metric(f'opencloud_credentials_refused_total{{reason="{reason}"}}')


def lines_of(gateway: Process) -> list[dict[str, object]]:
    return [json.loads(line) for line in gateway.output.splitlines() if line.startswith("{")]


def assert_bounded(lines: Iterable[dict[str, object]], reason: str, seconds: float) -> None:
    """Few lines for thousands of refusals, more of them in more time, and one that names the
    address."""
    lines = list(lines)
    named = [line for line in lines if line["event"] == "credentials.refused"]
    assert {"address": CLIENT, "reason": reason}.items() <= named[0].items()
    shown = Counter(line["event"] for line in lines if line["level"] != "debug")
    assert shown["credentials.refused"] < COUNT / 50 + seconds
    assert shown["request.answered"] < COUNT / 2 + seconds * WHOLE / 10


async def test_thousands_of_wrong_tokens_are_slowed_down_and_lock_nobody_out(
    cloud: Cloud, issuer: Issuer
) -> None:
    gateway = await cloud.gateway(LOG_FORMAT="json")
    forged = Issuer(issuer.kid).token("somebody")
    began = time.monotonic()
    answers = await flood(cloud, with_token(forged), TOKENS)
    assert set(answers) == {401, 429}
    assert sum(answers.values()) == TOKENS
    assert answers[401] <= WRONG_TOKENS * (1 + (time.monotonic() - began) // 60)
    good, expired = issuer.token("somebody"), issuer.token("somebody", exp=1)
    assert await ask(cloud, with_token(good), with_token(expired)) == [200, 401]
    assert await refused(gateway, "signature") == TOKENS
    assert_bounded(lines_of(gateway), "signature", time.monotonic() - began)
    assert forged.rpartition(".")[2] not in gateway.output


async def test_thousands_of_wrong_internal_keys_are_counted_and_the_right_one_works(
    cloud: Cloud,
) -> None:
    gateway = await cloud.gateway(LOG_FORMAT="json")
    began = time.monotonic()
    answers = await flood(cloud, update("planted-wrong-key"))
    assert answers == {401: COUNT}
    assert await ask(cloud, update(INTERNAL_KEY)) == [404]
    assert await refused(gateway, "api_key") == COUNT
    assert_bounded(lines_of(gateway), "api_key", time.monotonic() - began)
    assert "planted" not in gateway.output


async def test_thousands_of_wrong_passwords_are_refused_after_ten(
    cloud: Cloud, aws_url: str
) -> None:
    pool, began = create_user_pool(aws_url, [USER]), time.monotonic()
    accounts = {"PROD": "false", "LOG_FORMAT": "json", **pool.environment()}
    gateway = await cloud.gateway(**aws.environment(aws_url), **accounts)
    assert await ask(cloud, log_in("/token", USER.password)) == [201]
    answers = await flood(cloud, log_in("/token", "Wr0ng-password"))
    assert answers == {400: 10, 429: COUNT - 10}
    assert await ask(cloud, log_in("/login", USER.password)) == [429]
    assert await refused(gateway, "password") == 10
    assert await refused(gateway, "throttled") == COUNT - 10 + 1
    lines = lines_of(gateway)
    assert_bounded(lines, "password", time.monotonic() - began)
    trail = [line for line in lines if line["event"] == "audit.recorded"]
    assert [line["outcome"] for line in trail] == ["ok", *["refused"] * 10]
    assert {line["address"] for line in trail} == {CLIENT}
    assert len({line["target"] for line in trail}) == 1


async def test_foreign_pages_malformed_hosts_and_odd_groups_get_nowhere(
    cloud: Cloud, issuer: Issuer
) -> None:
    await cloud.gateway(**aws.environment("http://127.0.0.1:1"), PROD="false")
    foreign = log_in("/login", "x", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site")
    host = request("GET / HTTP/1.1", host='x>"evil')
    nearly = with_token(issuer.token("somebody", cognito__groups=["us\0ers"]))
    assert await ask(cloud, foreign, host, nearly) == [403, 400, 403]


async def test_escapes_in_a_path_are_shown_on_a_terminal_not_sent(
    cloud: Cloud, issuer: Issuer
) -> None:
    gateway = await cloud.gateway(LOG_FORMAT="pretty")
    hostile = "/files/data/%1B%5D0%3Bowned%07%C2%9B2J%E2%80%AE"
    token = f"Authorization: Bearer {cloud.token}"
    assert await ask(cloud, request(f"GET {hostile} HTTP/1.1", token)) == [404]
    await asyncio.to_thread(gateway.stop)
    written = re.sub(r"\x1b\[[0-9;]*m", "", gateway.output)  # the service's own colours
    assert r"/files/data/\x1b]0;owned\x07\x9b2J\u202e" in written
    assert all(line.isprintable() for line in written.split("\n"))
