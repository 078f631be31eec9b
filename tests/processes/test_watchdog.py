"""No request of at most 64 KiB keeps another user's `GET /` waiting.

The limit is on what the gateway itself takes. While one request after the other is answered, a user
asks for `GET /` again and again; from the time of each answer is deducted how long the gateway's
threads and the test's own were ready to run while the machine was running others.
"""

import asyncio
import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Final, Self

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from devtools.services import Process
from tests.support.cloud import Cloud, on_sqlite
from tests.support.nasty import corpus
from tests.support.nasty.build import LARGEST, request
from tests.support.nasty.fuzzed import fuzzed
from tests.support.slowness import kept_waiting, slowness

pytestmark = pytest.mark.slow

LATEST: Final = 0.2
"""Seconds that an answer may take on the machine for which the limit was stated."""

AGAIN: Final = 4
"""How often a request is repeated beside which an answer took longer."""

EXAMPLES: Final = int(os.environ.get("TEST_FUZZED_REQUESTS", "150"))

GIVEN_UP_AFTER: Final = 0.5
"""Seconds without another byte; a stream of events never ends."""

ACCOUNTS: Final = {
    "PROD": "false",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
}
"""The endpoints of accounts are there; nothing that is sent here gets as far as Cognito."""


class Others:
    """Another user's `GET /`, one after the other in a thread, until the end of the context."""

    PAUSE: Final = 0.001

    def __init__(self, gateway: Process, port: int, token: str) -> None:
        self._threads = Path(f"/proc/{gateway.pid}/task")
        self._request = request("GET /", token, "Connection: keep-alive")
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._lock = threading.Lock()
        self._latest = 0.0
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def latest(self) -> float:
        """Seconds that the slowest answer took since the last call, those of the machine's other
        work left out."""
        assert self.failure is None, self.failure
        with self._lock:
            latest, self._latest = self._latest, 0.0
        return latest

    def _run(self) -> None:
        try:
            while not self._over.wait(self.PAUSE):
                waited, began = self._kept_waiting(), time.monotonic()
                self._socket.sendall(self._request)
                assert self._socket.recv(65_536).startswith(b"HTTP/1.1 200 ")
                late = time.monotonic() - began
                if late > self._latest:
                    late -= self._kept_waiting() - waited
                with self._lock:
                    self._latest = max(self._latest, late)
        except BaseException as error:
            self.failure = error

    def _kept_waiting(self) -> float:
        own = Path("/proc/self/task")  # any of them may have held the interpreter meanwhile
        return kept_waiting(*own.iterdir(), *self._threads.iterdir())


def send(port: int, message: bytes) -> bytes:
    """Send a request, whether the gateway takes all of it or not; the status, if it answers."""
    found = bytearray()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(GIVEN_UP_AFTER)
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(message)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while piece := connection.recv(1 << 20):
                if not found:
                    found += piece[:65_536]
                if b"text/event-stream" in found:
                    break
    return bytes(found[9:12])


@pytest.fixture
async def gateway(cloud: Cloud) -> Process:
    """A gateway with a file and some jobs of the user, and what it answers to nobody."""
    gateway = await cloud.gateway(**ACCOUNTS, MAX_CONCURRENT_REQUESTS=0)
    cloud.plant("data/x/f", b"content" * 1_000)
    for number in range(20):
        assert (await cloud.caller.submit(f"job-{number}"))[0] == 201
    return gateway


class Watchdog:
    """Sends requests, and finds out how late others are answered meanwhile."""

    def __init__(self, cloud: Cloud, gateway: Process) -> None:
        self._port = cloud.port
        token = cloud.caller_of("other").headers["Authorization"].removeprefix("Bearer ")
        self._others = Others(gateway, cloud.port, token)
        self._limit = LATEST * slowness()

    def __enter__(self) -> Self:
        self._others.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._others.__exit__()

    def check(self, message: bytes, name: str = "") -> float:
        """How late others were, in seconds; fails if that was too late, and for a 5xx.

        What was too late is sent again: it is the request that takes its time if it does so always,
        otherwise the machine.
        """
        assert len(message) <= LARGEST
        late, limit = self._send(message, name), self._limit
        for _ in range(AGAIN):
            if late < limit:
                break
            limit = max(limit, LATEST * slowness())
            late = min(late, self._send(message, name))
        assert late < limit, f"{late:.3f} s: {name or message!r}"
        return late

    def _send(self, message: bytes, name: str) -> float:
        self._others.latest()
        status = send(self._port, message)
        late = self._others.latest()
        assert status[:1] != b"5", (status, name or message)
        return late


async def test_no_awkward_request_keeps_others_waiting(cloud: Cloud, gateway: Process) -> None:
    with Watchdog(cloud, gateway) as watchdog:
        late = {
            name: watchdog.check(message, name) for name, message in corpus(cloud.token).items()
        }
    for name in sorted(late, key=lambda name: -late[name])[:10]:
        print(f"{late[name]:.3f} s: {name}")
    assert "request.failed" not in gateway.output


@on_sqlite
async def test_no_fuzzed_request_keeps_others_waiting(cloud: Cloud, gateway: Process) -> None:
    with Watchdog(cloud, gateway) as watchdog:

        @settings(
            max_examples=EXAMPLES,
            phases=[Phase.generate],  # a smaller request takes less time
            suppress_health_check=list(HealthCheck),
        )
        @given(message=fuzzed(cloud.token))
        def check(message: bytes) -> None:
            watchdog.check(message)

        await asyncio.to_thread(check)
    assert "request.failed" not in gateway.output
