"""Bodies that arrive slowly, not at all, or too many at once."""

import socket
import time
from contextlib import ExitStack

import pytest

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, Issuer


def connect(gateway: Gateway, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))


def announce(token: str, length: int, path: str = "/jobs", kind: str = "application/json") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("length", [1_000, 1_000_000], ids=["small", "large"])
def test_a_body_that_stops_arriving_is_given_up(
    start_gateway: StartGateway, issuer: Issuer, length: int
) -> None:
    gateway = start_gateway(CLIENT_TIMEOUT="0.5")
    with ExitStack() as stack:
        connection = connect(gateway, stack)
        connection.sendall(announce(issuer.token("somebody"), length) + b"[")
        began, answer = time.monotonic(), connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come in time" in answer
    assert b"Connection: close" in answer
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_body_may_take_any_time_while_it_moves(
    start_gateway: StartGateway, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    gateway = start_gateway(CLIENT_TIMEOUT="1", PROD="false")
    with ExitStack() as stack:
        connection = connect(gateway, stack)
        connection.sendall(announce("", 25, "/token", kind))
        for _ in range(25):
            time.sleep(0.1)
            connection.sendall(b"[" if kind == "application/json" else b"a")
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 422 ")


def test_of_large_bodies_only_some_are_read_at_once(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway()
    token = issuer.token("somebody")
    api = Api(gateway, "somebody", token)
    attributes = {"files_down": {}, "env_vars": {"KEY": "x" * 2_000_000}}
    with ExitStack() as stack:
        for _ in range(16):
            connect(gateway, stack).sendall(announce(token, 1_000_000) + b"[")
        deadline = time.monotonic() + 5
        while (reply := api.submit(attributes=attributes)).status != 503:
            assert time.monotonic() < deadline
        assert reply.headers["retry-after"]
        assert reply.detail
        api.new_job()  # small ones are read all the same
    while (reply := api.submit(attributes=attributes)).status == 503:
        assert time.monotonic() < deadline
    assert reply.status == 201
