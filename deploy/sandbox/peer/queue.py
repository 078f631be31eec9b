"""The peer's queue: each submission is a new entry with an id of the peer."""

import asyncio
import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.sandbox.peer.journal import Journal

WITH_WORKER: Final = frozenset({"pulled", "preprocessing", "running", "postprocessing"})
FINAL: Final = frozenset({"finished", "error"})
STATUSES: Final = frozenset({"queued", *WITH_WORKER, *FINAL})


@dataclass(slots=True)
class Entry:
    """A submission with its delivery number and the name of its job."""

    id: int
    submission: dict[str, Any]
    status: str = "queued"
    worker: str | None = None
    last_seen: float = 0.0
    tried: list[str] = field(default_factory=list)
    ran: bool = False

    @property
    def number(self) -> int:
        return int(self.submission["job"]["meta"]["job_id"])

    @property
    def name(self) -> str:
        return job_name(self.submission)

    @property
    def priority(self) -> int:
        return int(self.submission.get("priority") or 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "job_id": self.number,
            "name": self.name,
            "priority": self.priority,
            "status": self.status,
            "worker": self.worker,
            "tried": self.tried,
            "ran": self.ran,
        }


def job_name(submission: dict[str, Any]) -> str:
    """The job's name, which is the last part of the upload paths."""
    for path in (submission.get("paths_upload") or {}).values():
        return str(path).rstrip("/").rpartition("/")[2]
    return ""


class JobQueue:
    """Entries by priority, highest first, then by age; for one event loop."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._entries: dict[int, Entry] = {}
        self._by_number: dict[int, int] = {}
        self._waiting: list[tuple[int, int]] = []
        self._with_worker: dict[int, Entry] = {}
        self._last_id = 0
        self._arrived = asyncio.Event()
        for record in journal.load() if journal else ():
            self._replay(record)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def find_number(self, number: int) -> Entry | None:
        """The newest entry with this delivery number."""
        return self._entries.get(self._by_number.get(number, 0))

    def add(self, submission: dict[str, Any]) -> Entry:
        self._last_id += 1
        entry = Entry(self._last_id, submission)
        self._record(add=entry.id, submission=submission)
        self._insert(entry)
        return entry

    def _insert(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._by_number[entry.number] = entry.id
        self._offer(entry)

    def _offer(self, entry: Entry) -> None:
        heapq.heappush(self._waiting, (-entry.priority, entry.id))
        self._arrived.set()

    async def pull(
        self, worker: str, environment: str | None = None, *, wait: float = 0.0
    ) -> Entry | None:
        """Assign the first entry that `worker` may run; wait up to `wait` seconds for one."""
        end = time.monotonic() + wait
        while (entry := self._take(worker, environment)) is None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return None
        return entry

    def _take(self, worker: str, environment: str | None) -> Entry | None:
        passed_over: list[tuple[int, int]] = []
        found = None
        while self._waiting and found is None:
            item = heapq.heappop(self._waiting)
            entry = self._entries.get(item[1])
            if entry is None or entry.status != "queued":
                continue
            wanted = entry.submission.get("environment")
            if environment is not None and wanted not in (None, environment):
                passed_over.append(item)
                continue
            found = entry
        for item in passed_over:
            heapq.heappush(self._waiting, item)
        if found is not None:
            found.worker = worker
            self.set_status(found, "pulled")
        return found

    def of_worker(self, entry_id: int, worker: str) -> Entry | None:
        """The entry if it is assigned to this worker; counts as a report of the worker."""
        entry = self._entries.get(entry_id)
        if entry is None or entry.worker != worker:
            return None
        entry.last_seen = time.monotonic()
        return entry

    def set_status(self, entry: Entry, status: str) -> None:
        entry.status = status
        entry.last_seen = time.monotonic()
        if status in WITH_WORKER:
            self._with_worker[entry.id] = entry
        else:
            self._with_worker.pop(entry.id, None)
        self._record(set=entry.id, status=status, worker=entry.worker, tried=entry.tried)

    def requeue(self, entry: Entry) -> None:
        """Take the entry from its worker and queue it again at its age."""
        entry.tried.append(entry.worker or "")
        entry.worker = None
        self.set_status(entry, "queued")
        self._offer(entry)

    def remove(self, entry: Entry) -> None:
        if self._entries.pop(entry.id, None) is not None:
            self._with_worker.pop(entry.id, None)
            self._record(remove=entry.id)

    def stalled_for(self, seconds: float) -> Entry | None:
        """An entry whose worker has not reported for that long."""
        before = time.monotonic() - seconds
        stalled = (entry for entry in self._with_worker.values() if entry.last_seen < before)
        return next(stalled, None)

    def _record(self, **record: Any) -> None:
        if self._journal is not None:
            self._journal.record(record)

    def _replay(self, record: dict[str, Any]) -> None:
        journal, self._journal = self._journal, None
        if "add" in record:
            self._last_id = max(self._last_id, record["add"])
            self._insert(Entry(record["add"], record["submission"]))
        elif "remove" in record and (entry := self._entries.get(record["remove"])):
            self.remove(entry)
        elif "set" in record and (entry := self._entries.get(record["set"])):
            entry.worker, entry.tried = record["worker"], record["tried"]
            self.set_status(entry, record["status"])
            if entry.status == "queued":
                self._offer(entry)
        self._journal = journal
