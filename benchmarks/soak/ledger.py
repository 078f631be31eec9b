"""What was requested and what was observed, recorded outside of everything that is killed."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.sandbox.peer.queue import job_name
from devtools.event_source import EventSource

SUBMITTED: Final = "submitted"
HANDED_OVER: Final = "handed over"
REPORTED: Final = "reported"
MAILED: Final = "mailed"

_READ_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """A worker ran a job: its delivery number, and the peer's id of the copy."""

    number: int
    entry: int
    worker: str


@dataclass
class Keyed:
    """A submission under an `Idempotency-Key`: its jobs, and the bodies of all its answers."""

    names: list[str]
    bodies: list[bytes] = field(default_factory=list)


@dataclass
class RequestKind:
    """Requests of one kind: `latencies` in seconds, wrong answers in words."""

    latencies: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    repeated: int = 0


@dataclass
class Ledger:
    """Jobs by name. `latest` has the time of the last success of each kind of step."""

    requested: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    perhaps_deleted: set[str] = field(default_factory=set)
    keyed: dict[str, Keyed] = field(default_factory=dict)
    endings: list[str] = field(default_factory=list)
    """Subjects of the mails about the endings that users have observed."""
    arrivals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    dropped_copies: int = 0
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    stalled: int = 0
    reports: int = 0
    mails: Counter[str] = field(default_factory=Counter)
    subjects: Counter[str] = field(default_factory=Counter)
    streams: dict[str, EventSource] = field(default_factory=dict)
    """What each user has seen of the events of all own jobs."""
    requests: dict[str, RequestKind] = field(default_factory=lambda: defaultdict(RequestKind))
    latest: dict[str, float] = field(default_factory=dict)

    def succeeded(self, step: str) -> None:
        self.latest[step] = time.monotonic()

    def read_journal(self, record: dict[str, Any]) -> None:
        """Take a line of the peer's journal, which has all that the peer ever accepted."""
        if "add" in record:
            submission = record["submission"]
            self.arrivals[job_name(submission)].append(submission["job"]["meta"]["job_id"])
            self.succeeded(HANDED_OVER)
        elif "remove" in record:
            self.dropped_copies += 1

    def read_mail(self, mail: dict[str, Any]) -> None:
        """Take a line of the file of sent mails."""
        self.mails[mail["custom_id"]] += 1
        self.subjects[mail["subject"]] += 1
        self.succeeded(MAILED)


class Follower:
    """Reads a file of JSON lines while another process appends to it."""

    def __init__(self, path: Path, read: Callable[[dict[str, Any]], None]) -> None:
        self._path = path
        self._read = read
        self._position = 0

    async def follow(self) -> None:
        """Read new lines until cancelled."""
        while True:
            self.catch_up()
            await asyncio.sleep(_READ_EVERY)

    def catch_up(self) -> None:
        """Read the lines that are new."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._position += len(complete)
        for line in complete.splitlines():
            self._read(orjson.loads(line))
