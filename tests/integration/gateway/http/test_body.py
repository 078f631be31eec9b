"""Bodies that come slowly, or of which there are too many at once."""

import socket
import time
from contextlib import ExitStack

from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, Issuer


def connect(gateway: Gateway, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=10))


def announce(token: str, length: int) -> bytes:
    return (
        f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_a_json_body_that_trickles_is_given_up_though_bytes_move(
    start_gateway: StartGateway, issuer: Issuer
) -> None:
    gateway = start_gateway(CLIENT_TIMEOUT="0.5")
    with ExitStack() as stack:
        connection = connect(gateway, stack)
        connection.sendall(announce(issuer.token("somebody"), 1000))
        connection.settimeout(0.1)
        began, answer = time.monotonic(), b""
        while not answer and time.monotonic() - began < 5:
            connection.sendall(b" ")
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come in time" in answer
    assert b"Connection: close" in answer
    assert 0.5 <= time.monotonic() - began < 3


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
