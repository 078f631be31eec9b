"""Bodies that arrive slowly, not at all, or too many at once."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway

JSON = "application/json"
Begin = Callable[..., socket.socket]


@pytest.fixture
def begin(issuer: Issuer) -> Iterator[Begin]:
    """Sends a head that announces a body of so many bytes, and the body's first one."""
    token = issuer.token("somebody")
    with ExitStack() as stack:

        def start(gateway: Gateway, length: int, path: str = "/jobs", kind: str = JSON):
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
            kind = f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n["
            connection.sendall((head + kind).encode())
            return stack.enter_context(connection)

        yield start


@pytest.mark.parametrize("length", [1_000, 1_000_000], ids=["small", "large"])
def test_a_body_that_stops_arriving_is_given_up(
    start_gateway: StartGateway, begin: Begin, length: int
) -> None:
    connection = begin(start_gateway(CLIENT_TIMEOUT="0.5"), length)
    began, answer = time.monotonic(), connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come in time" in answer
    assert b"Connection: close" in answer
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("kind", [JSON, "application/x-www-form-urlencoded"])
def test_a_body_may_take_any_time_while_it_moves(
    start_gateway: StartGateway, begin: Begin, kind: str
) -> None:
    connection = begin(start_gateway(CLIENT_TIMEOUT="1", PROD="false"), 26, "/token", kind)
    for _ in range(25):
        time.sleep(0.1)
        connection.sendall(b"[")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 422 ")


def test_only_some_large_bodies_are_read_at_once(
    start_gateway: StartGateway, begin: Begin, issuer: Issuer
) -> None:
    api = Api(start_gateway(), "somebody", issuer.token("somebody"))
    large = {"attributes": {"files_down": {}}, "ignored": "x" * 2_000_000}
    slow = [begin(api.gateway, 1_000_000) for _ in range(16)]
    deadline = time.monotonic() + 5
    while (reply := api.submit(**large)).status != 503:
        assert time.monotonic() < deadline
    assert reply.headers["retry-after"]
    assert reply.detail
    api.new_job()  # small ones are read all the same
    for connection in slow:
        connection.close()
    while (reply := api.submit(**large)).status == 503:
        assert time.monotonic() < deadline
    assert reply.status == 201
