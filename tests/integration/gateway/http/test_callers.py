"""Limits on the requests of one caller: at once, and in a window of time."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from devtools.user_pool import INTERNAL_KEY, Issuer
from devtools.waiting import eventually
from gateway.http.keys import IN_FLIGHT
from gateway.http.limits import Caller, user_caller
from gateway.http.tarpit import Tarpit
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import FRONTEND, Api, Gateway

REST = "Host: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
AT_ONCE = "Limit exceeded: 2 requests at once"


@contextmanager
def under_way(gateway: Gateway, head: str, number: int = 2) -> Iterator[None]:
    """Requests whose bodies do not arrive."""
    assert gateway.app is not None
    in_flight = gateway.app[IN_FLIGHT]
    with ExitStack() as stack:
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
            stack.enter_context(connection)
            connection.sendall(f"{head}\r\n{REST}".encode())
        asyncio.run(eventually(lambda: len(in_flight) == number))
        yield
    asyncio.run(eventually(lambda: not len(in_flight)))


def test_a_user_has_a_number_of_requests_at_once(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(MAX_CONCURRENT_REQUESTS="2")
    alice = Api(gateway, token=issuer.token("alice"), headers={"Origin": FRONTEND})
    bob = Api(gateway, token=issuer.token("bob"))
    assert alice.get("/user").status == 200  # whose token nothing waits for from now on
    head = f"POST /jobs HTTP/1.1\r\nAuthorization: Bearer {alice.token}"
    with under_way(gateway, head):
        refused = alice.get("/user")
        assert (refused.status, refused.json()) == (429, {"detail": AT_ONCE})
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-request-id"]
        assert refused.headers["access-control-allow-origin"] == FRONTEND
        assert "ratelimit" not in refused.headers
        assert bob.get("/user").status == 200
        assert Api(gateway).get("/").status == 200
        assert alice.get("/nowhere").status == 404
        assert bob.report(1, "running").status == 404
    assert alice.get("/user").status == 200


def test_only_users_wait_for_answers_to_refused_requests(
    start_gateway: StartGateway, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Caller] = []

    async def hold(_: Tarpit, caller: Caller) -> None:
        held.append(caller)

    monkeypatch.setattr(Tarpit, "hold", hold)
    gateway = start_gateway(RATE_LIMIT="1/3600")
    alice = Api(gateway, token=issuer.token("alice"))
    assert [alice.get(path).status for path in ("/user", "/user", "/nowhere")] == [200, 429, 404]
    assert Api(gateway).get("/user").status == 401
    assert held == [user_caller("alice")]


def test_without_credentials_an_address_has_a_number_of_requests_at_once(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    gateway = start_gateway(MAX_CONCURRENT_REQUESTS="2", PROD="false")
    here = Api(gateway, headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.7"})
    with under_way(gateway, "POST /token HTTP/1.1\r\nX-Forwarded-For: 203.0.113.7"):
        refused = here.get("/access_info")
        assert (refused.status, refused.json()) == (429, {"detail": AT_ONCE})
        assert refused.headers["retry-after"] == "1"
        assert Api(gateway).get("/access_info").status == 200
    assert here.get("/access_info").status == 200


def test_status_updates_have_no_limit(start_gateway: StartGateway) -> None:
    gateway = start_gateway(MAX_CONCURRENT_REQUESTS="2", RATE_LIMIT="1/3600")
    with under_way(gateway, f"PUT /_job_status HTTP/1.1\r\nx-api-key: {INTERNAL_KEY}", number=5):
        reply = Api(gateway).report(1, "running")
    assert (reply.status, reply.detail) == (404, "Not Found")
    assert "ratelimit" not in reply.headers


def test_no_number_is_no_limit(start_gateway: StartGateway, issuer: Issuer) -> None:
    gateway = start_gateway(MAX_CONCURRENT_REQUESTS="0")
    token = issuer.token("alice")
    head = f"POST /jobs HTTP/1.1\r\nAuthorization: Bearer {token}"
    with under_way(gateway, head, number=70):
        reply = Api(gateway, token=token).get("/user")
    assert reply.status == 200
    assert "ratelimit" not in reply.headers


def test_a_user_has_a_number_of_requests_in_a_window(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(RATE_LIMIT="4/3600")
    alice = Api(gateway, "alice", issuer.token("alice"), headers={"Origin": FRONTEND})
    alice.plant("data/f", b"x" * 2_000_000)
    for left, (path, status) in enumerate(
        [("/files/data/f/download", 200), ("/files/data/none", 404), ("/jobs?limit=x", 422),
         ("/user", 200)]
    ):  # fmt: skip
        reply = alice.get(path)
        assert reply.status == status
        assert reply.headers["ratelimit-policy"] == '"default";q=4;w=3600'
        assert reply.headers["ratelimit"].startswith(f'"default";r={3 - left};t=3')
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
    refused = alice.get("/user")
    assert (refused.status, refused.detail) == (429, "Limit exceeded: 4 requests in 3600 s")
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit-policy"] == '"default";q=4;w=3600'
    assert refused.headers["ratelimit"].startswith('"default";r=0;t=3')
    assert Api(gateway, token=issuer.token("bob")).get("/user").status == 200
    assert "ratelimit" not in Api(gateway).get("/user").headers
    assert "ratelimit" not in Api(gateway).get("/").headers
