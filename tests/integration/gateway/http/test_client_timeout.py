"""Clients that owe a head, a body, or the reading of an answer, and idle ones."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import structlog
from structlog.typing import EventDict

from devtools.user_pool import Issuer
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway

TIMEOUT = 1.0
"""Seconds. A busy machine may take a good part of one between a connection and its head."""
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"PUT /_job_status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"

Connect = Callable[[], socket.socket]


@pytest.fixture
def gateway(start_gateway: StartGateway) -> Gateway:
    return start_gateway(CLIENT_TIMEOUT=str(TIMEOUT))


@pytest.fixture
def connect(gateway: Gateway) -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_one() -> socket.socket:
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            connection.settimeout(10)
            connection.connect(("127.0.0.1", gateway.port))
            return connection

        yield open_one


def is_closed(connection: socket.socket) -> bool:
    """Whether the gateway closes the connection without a further byte."""
    try:
        return connection.recv(65_536) == b""
    except ConnectionResetError:
        return True


def given_up(events: list[EventDict]) -> list[str]:
    return [event["owed"] for event in events if event["event"] == "client.given_up"]


@pytest.mark.parametrize("sent", [b"", GET[:9], GET[:-1]], ids=["nothing", "9 bytes", "almost"])
def test_an_unfinished_head_is_given_up(connect: Connect, sent: bytes) -> None:
    with structlog.testing.capture_logs() as events:
        connection = connect()
        connection.sendall(sent)
        assert is_closed(connection)
    assert given_up(events) == ["head"]


@pytest.mark.parametrize("first", [GET, POST + b"{}"], ids=["GET", "PUT"])
def test_the_head_of_a_later_request_has_the_same_time(connect: Connect, first: bytes) -> None:
    connection = connect()
    connection.sendall(first)
    assert connection.recv(65_536).startswith(b"HTTP/1.1 ")
    began = time.monotonic()
    connection.sendall(GET[:9])
    assert is_closed(connection)
    assert time.monotonic() - began > TIMEOUT - 0.01  # clocks of milliseconds


def test_a_head_that_trickles_is_given_up_though_bytes_move(connect: Connect) -> None:
    connection = connect()
    began = time.monotonic()
    connection.settimeout(0.05)
    closed = False
    while not closed and time.monotonic() - began < 10:
        try:
            connection.sendall(b"x")
            closed = is_closed(connection)
        except TimeoutError:
            continue
        except ConnectionError:
            closed = True
    assert closed


def test_an_idle_connection_is_kept(connect: Connect) -> None:
    idle = []
    for sent in (GET, GET + GET, POST + b"{}", POST + b"{}" + GET):
        connection, found = connect(), b""
        connection.sendall(sent)
        while found.count(b"HTTP/1.1 ") < sent.count(b"HTTP/1.1"):
            more = connection.recv(65_536)
            assert more
            found += more
        idle.append(connection)
    for _ in range(2):  # by then an idle one would have been given up as well
        assert is_closed(connect())
    for connection in idle:
        connection.sendall(GET)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_the_rest_of_a_body_is_given_up(connect: Connect, issuer: Issuer) -> None:
    token = issuer.token("somebody")
    head = f"POST /files/data/x/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    kind = "Content-Type: multipart/form-data; boundary=mark\r\nContent-Length: 1000\r\n\r\n"
    with structlog.testing.capture_logs() as events:
        connection = connect()
        connection.sendall((head + kind).encode())
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert given_up(events) == ["body"]


def test_an_answer_that_is_not_read_is_given_up(
    gateway: Gateway, connect: Connect, issuer: Issuer
) -> None:
    api = Api(gateway, "somebody", issuer.token("somebody"))
    assert api.get("/files/").status == 200
    api.plant("data/large", bytes(16 << 20))
    head = "GET /files/data/large/download HTTP/1.1\r\nHost: x\r\n"
    with structlog.testing.capture_logs() as events:
        connection = connect()
        connection.sendall(f"{head}Authorization: Bearer {api.token}\r\n\r\n".encode())
        deadline = time.monotonic() + 10
        while not given_up(events):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert given_up(events) == ["answer"]
