"""What was asked for and what was seen, kept outside of everything that is killed."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.sandbox.peer.queue import job_name

SUBMITTED: Final = "submitted"
HANDED_OVER: Final = "handed over"
REPORTED: Final = "reported"
MAILED: Final = "mailed"

_LOOK_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """A worker was allowed to run a job: its number, and the peer's own id of the copy."""

    number: int
    entry: int
    worker: str


@dataclass
class Ledger:
    """Jobs go by name. `latest` tells when each kind of thing last succeeded."""

    asked: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    perhaps_deleted: set[str] = field(default_factory=set)
    arrivals: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    dropped_copies: int = 0
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    silences: int = 0
    mails: Counter[str] = field(default_factory=Counter)
    subjects: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    latest: dict[str, float] = field(default_factory=dict)

    def succeeded(self, what: str) -> None:
        self.latest[what] = time.monotonic()

    def ran(self, name: str, run: Run) -> None:
        self.runs[name].append(run)

    def read_journal(self, record: dict[str, Any]) -> None:
        """One line of the peer's journal, which holds whatever the peer ever took."""
        if "add" in record:
            submission = record["submission"]
            self.arrivals[job_name(submission)].append(submission["job"]["meta"]["job_id"])
            self.succeeded(HANDED_OVER)
        elif "remove" in record:
            self.dropped_copies += 1

    def read_mail(self, mail: dict[str, Any]) -> None:
        """One line of the file with the mails that were sent."""
        self.mails[mail["custom_id"]] += 1
        self.subjects[mail["subject"]] += 1
        self.succeeded(MAILED)


class Follower:
    """Reads a file of JSON lines while another process writes it."""

    def __init__(self, path: Path, read: Callable[[dict[str, Any]], None]) -> None:
        self._path = path
        self._read = read
        self._position = 0

    async def follow(self) -> None:
        """Read what comes, for ever."""
        while True:
            self.catch_up()
            await asyncio.sleep(_LOOK_EVERY)

    def catch_up(self) -> None:
        """Read what has come since the last time."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            self._read(orjson.loads(line))
