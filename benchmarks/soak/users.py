"""A user who submits jobs, deletes some, and asks again where there was no answer."""

import asyncio
import random
from typing import Any, Final

import aiohttp

from benchmarks.seed import APPLICATION
from benchmarks.soak.ledger import SUBMITTED, Ledger

_DELETED: Final = 0.1
_ASKS_AGAIN: Final = 0.75
_LONGEST_LIFE: Final = 3.0


class User:
    """Whoever has many jobs; what is answered goes to the ledger."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, ledger: Ledger, seed: int
    ) -> None:
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    async def submit(self, rate: float) -> None:
        """Start `rate` submissions per second until cancelled; `finish` waits for their end."""
        while True:
            self.submit_at_once(1)
            await asyncio.sleep(self._chance.expovariate(rate))

    def submit_at_once(self, count: int) -> None:
        """Start so many submissions; `finish` waits for their end."""
        for _ in range(count):
            self._count += 1
            task = asyncio.get_running_loop().create_task(self._live(f"job-{self._count}"))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until every submission and deletion has had its answer."""
        await asyncio.gather(*self._tasks)

    async def _live(self, name: str) -> None:
        job_id = await self._submit(name)
        if self._chance.random() < _DELETED:
            await asyncio.sleep(self._chance.random() * _LONGEST_LIFE)
            await self._delete(name, job_id or await self._find(name))

    async def _submit(self, name: str) -> int | None:
        """The job's id; None where only a refusal of the name tells that it is there."""
        self._ledger.asked.add(name)
        body = {
            "job_name": name,
            "application": APPLICATION,
            "attributes": {"files_down": {}},
            "priority": self._chance.randrange(6),
        }
        while True:
            status, answer = await self._send("POST", "/jobs", json=body)
            if status in {201, 409}:
                self._ledger.accepted.add(name)
                self._ledger.succeeded(SUBMITTED)
                return int(answer["id"]) if status == 201 else None
            await self._pause()

    async def _find(self, name: str) -> int:
        while True:
            status, answer = await self._send("GET", "/jobs?limit=10000")
            if status == 200:
                return next(int(job["id"]) for job in answer if job["job_name"] == name)
            await self._pause()

    async def _delete(self, name: str, job_id: int) -> None:
        self._ledger.perhaps_deleted.add(name)
        while True:
            status, _ = await self._send("DELETE", f"/jobs/{job_id}")
            if status in {204, 404}:
                self._ledger.deleted.add(name)
                return
            if self._chance.random() > _ASKS_AGAIN:
                return
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(0.1 + self._chance.random() * 0.4)

    async def _send(self, method: str, path: str, **parts: Any) -> tuple[int | None, Any]:
        """Status and body; no status where the connection broke."""
        try:
            async with self._session.request(
                method, self._url + path, headers=self._headers, **parts
            ) as response:
                body = await response.json() if response.content_length else None
                status: int | None = response.status
        except (aiohttp.ClientError, TimeoutError):
            status, body = None, None
        self._ledger.answers[f"{method} {status or 'broken'}"] += 1
        return status, body
