"""Six calls of one user and its worker, one after the other: how long each takes."""

import itertools
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import seed
from benchmarks.load_generator import ResponseReader
from benchmarks.messages import Endpoint

_PAUSE: Final = 0.002
_TIMEOUT: Final = 60.0
_SMALL: Final = bytes(1024)
_PLACE: Final = "/files/data/small"

NAMES: Final = (
    "GET /", "listing", "upload of 1 KiB", "download of 1 KiB", "POST /jobs", "PUT /_job_status",
)  # fmt: skip


class UnexpectedStatus(Exception):
    """A call was refused."""


@dataclass(frozen=True)
class Caller:
    """A user with the inputs of jobs, and the worker-facing API with one of the user's jobs."""

    user: Endpoint
    peer: Endpoint
    running: int

    def measure(self, seconds: float) -> dict[str, list[float]]:
        """Seconds that each call took, by its name; one round at least.

        Raises `UnexpectedStatus`, `OSError`.
        """
        connection = socket.create_connection((self.user.host, self.user.port), _TIMEOUT)
        taken: dict[str, list[float]] = {name: [] for name in NAMES}
        with connection:
            ends = time.monotonic() + seconds
            for number in itertools.count():
                for name, message in self._round(number).items():
                    began = time.monotonic()
                    _ask(connection, name, message)
                    taken[name].append(time.monotonic() - began)
                    time.sleep(_PAUSE)
                if time.monotonic() > ends:
                    return taken
        raise AssertionError

    def _round(self, number: int) -> Mapping[str, bytes]:
        user = self.user
        update = {"job_id": self.running, "status": "running"}
        job: dict[str, Any] = {
            "job_name": f"job-{time.time_ns()}-{number}",
            "application": seed.APPLICATION,
            "attributes": seed.ATTRIBUTES,
        }
        messages = (
            user.message("GET", "/"),
            user.message("GET", "/files/data/?recursive=true"),
            user.form(f"{_PLACE}/upload", "file", _SMALL),
            user.message("GET", f"{_PLACE}/file/download"),
            user.json("POST", "/jobs", job),
            self.peer.json("PUT", "/_job_status", update),
        )
        return dict(zip(NAMES, messages, strict=True))


def _ask(connection: socket.socket, name: str, message: bytes) -> None:
    connection.sendall(message)
    reader = ResponseReader()
    while (response := reader.feed(connection.recv(1 << 16))) is None:
        pass
    if response[0] >= 300:
        raise UnexpectedStatus(f"{name}: {response[0]} {response[1][:300]!r}")
