"""Counters of the peer for tests and benchmarks."""

import time
import weakref
from collections import Counter
from typing import Any

from aiohttp import web


class Counters:
    """Counts since the start or the last reset."""

    def __init__(self) -> None:
        self._connections_seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self.reset()

    def reset(self) -> None:
        self.connections = 0
        self.probes = 0
        self.received = 0
        self.accepted = 0
        self.refused = 0
        self.received_by_number: Counter[int] = Counter()
        self.accepted_by_number: Counter[int] = Counter()
        self.accepted_by_name: Counter[str] = Counter()
        self.runs_by_number: Counter[int] = Counter()
        self.runs_by_name: Counter[str] = Counter()
        self.updates: Counter[str] = Counter()
        self.dropped_copies = 0
        self.arrivals: list[tuple[int, str, float, str]] = []

    def connection(self, request: web.Request) -> None:
        """Count the dispatcher's connection if this is its first request."""
        if request.task not in self._connections_seen:  # one task per connection
            self._connections_seen.add(request.task)
            self.connections += 1

    def submission(self, number: int, name: str, request_id: str) -> None:
        self.received += 1
        self.received_by_number[number] += 1
        self.arrivals.append((number, name, time.time(), request_id))

    def acceptance(self, number: int, name: str) -> None:
        self.accepted += 1
        self.accepted_by_number[number] += 1
        self.accepted_by_name[name] += 1

    def run(self, number: int, name: str) -> None:
        self.runs_by_number[number] += 1
        self.runs_by_name[name] += 1

    def as_json(self) -> dict[str, Any]:
        return {
            "connections": self.connections,
            "probes": self.probes,
            "submissions": {
                "received": self.received,
                "accepted": self.accepted,
                "refused": self.refused,
                "received_by_number": self.received_by_number,
                "accepted_by_number": self.accepted_by_number,
                "accepted_by_name": self.accepted_by_name,
            },
            "runs": {
                "total": self.runs_by_number.total(),
                "by_number": self.runs_by_number,
                "by_name": self.runs_by_name,
            },
            "updates": self.updates,
            "dropped_copies": self.dropped_copies,
        }
