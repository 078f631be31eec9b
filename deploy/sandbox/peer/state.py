"""The settings and the state that the peer's handlers share."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web

from deploy.sandbox.faults import FaultPlan
from deploy.sandbox.peer.counters import Counters
from deploy.sandbox.peer.files import WorkerFiles
from deploy.sandbox.peer.queue import Entry, JobQueue
from deploy.sandbox.peer.updates import GatewayUpdates

PLACES: Final = ("submit", "openapi", "question")


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """The addresses of the gateway and the users' files. Times in seconds.

    A worker that does not report for `silence` loses its job, which is retried `retries` times.
    """

    gateway: str
    key: str = field(repr=False)
    filesystem: str = "local"
    root: str = "user_data"
    bucket: str = ""
    region: str = "eu-central-1"
    journal: Path | None = None
    silence: float = 20.0
    retries: int = 3
    update_timeout: float = 30.0
    can_be_asked: bool = False


@dataclass(kw_only=True)
class Peer:
    """The running peer; `one_at_a_time` is locked during the commit of a submission."""

    settings: PeerSettings
    queue: JobQueue
    files: WorkerFiles
    updates: GatewayUpdates
    counters: Counters = field(default_factory=Counters)
    faults: FaultPlan = field(default_factory=lambda: FaultPlan(PLACES))
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    can_be_asked: bool = False

    async def forward(self, entry: Entry, status: str, details: str | None) -> int | None:
        """Forward a status to the gateway, whose 404 deletes the entry; returns its HTTP status."""
        answer = await self.updates.push(entry.number, status, details)
        self.counters.updates[str(answer or "none")] += 1
        if answer == 404:
            self.queue.remove(entry)
            self.counters.dropped_copies += 1
        return answer


PEER: Final = web.AppKey("PEER", Peer)


def as_json(value: Any, status: int = 200) -> web.Response:
    """A JSON response; keys may be integers, as those of counters."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json")
