"""Bodies that arrive slowly, not at all, or too many at once."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import orjson
import pytest

from devtools.user_pool import INTERNAL_KEY, Issuer
from gateway.http.budgets import LARGE_BODY, STATUS_UPDATE
from gateway.http.keys import SHARES
from tests.integration.gateway.conftest import StartGateway
from tests.support.gateway import Api, Gateway, job_body

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
    gateway = start_gateway(CLIENT_TIMEOUT="1.5")
    began = time.monotonic()
    answer = begin(gateway, length).recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not come in time" in answer
    assert b"Connection: close" in answer
    assert time.monotonic() - began >= 1.4


@pytest.mark.parametrize("kind", [JSON, "application/x-www-form-urlencoded"])
def test_a_body_may_take_any_time_while_it_moves(
    start_gateway: StartGateway, begin: Begin, kind: str
) -> None:
    connection = begin(start_gateway(CLIENT_TIMEOUT="2", PROD="false"), 31, "/token", kind)
    for _ in range(30):
        time.sleep(0.1)
        connection.sendall(b"[")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 422 ")


LONG = {"attributes": {"files_down": {}}, "ignored": "x" * 200_000}


def submit_in_chunks(api: Api) -> int:
    """The status of a long submission whose length is not announced."""
    body = orjson.dumps(job_body(**LONG))
    head = f"POST /jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    kind = f"Content-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return api.gateway.raw((head + kind).encode() + chunk).status


def report_with_long_log(gateway: Gateway) -> int:
    body = {"job_id": 1, "status": "error", "runtime_details": "x" * 100_000}
    worker = Api(gateway, headers={"x-api-key": INTERNAL_KEY})
    return worker.send("PUT", "/_job_status", json=body).status


def test_bodies_that_are_announced_and_not_sent_keep_no_other_out(
    start_gateway: StartGateway, begin: Begin, issuer: Issuer
) -> None:
    api = Api(start_gateway(), "somebody", issuer.token("somebody"))
    for _ in range(60):
        begin(api.gateway, 70_000)
    assert api.submit(**LONG).status == 201
    assert submit_in_chunks(api) == 201
    assert report_with_long_log(api.gateway) == 200


def test_large_bodies_of_one_user_delay_neither_others_nor_workers(
    start_gateway: StartGateway, begin: Begin, issuer: Issuer
) -> None:
    gateway = start_gateway()
    for _ in range(20):
        begin(gateway, 1_000_000).sendall(b"[" * 70_000)
    assert gateway.app is not None
    shares = gateway.app[SHARES]
    wait_until(lambda: shares.usage()["large_body"].waiting == 20 - LARGE_BODY.per_caller)
    assert shares.usage()["large_body"].in_use == LARGE_BODY.per_caller
    other = Api(gateway, "other", issuer.token("other"))
    assert other.submit(**LONG).status == 201
    assert submit_in_chunks(other) == 201
    assert report_with_long_log(gateway) == 200


def test_a_large_body_beyond_the_share_is_refused(
    start_gateway: StartGateway, begin: Begin, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(LARGE_BODY, per_caller=1, waiting=0)
    monkeypatch.setattr("gateway.http.budgets.LARGE_BODY", few)
    api = Api(start_gateway(), "somebody", issuer.token("somebody"))
    assert api.gateway.app is not None
    begin(api.gateway, 1_000_000).sendall(b"[" * 70_000)
    shares = api.gateway.app[SHARES]
    wait_until(lambda: shares.usage()["large_body"].in_use == 1)
    reply = api.submit(**LONG)
    assert reply.status == 429
    assert reply.headers["retry-after"]
    assert "large body" in reply.detail
    api.new_job()  # small ones are read all the same


def test_a_long_report_for_which_there_is_no_room_is_no_workers_fault(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = replace(STATUS_UPDATE, slots=0, per_caller=0, waiting=0)
    monkeypatch.setattr("gateway.http.budgets.STATUS_UPDATE", none)
    assert report_with_long_log(start_gateway()) == 503


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)
