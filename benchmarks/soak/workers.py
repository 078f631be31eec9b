"""Workers that pull from the peer and report, and run nothing."""

import asyncio
import random
from typing import Any, Final

import aiohttp

from benchmarks.soak.ledger import REPORTED, Ledger, Run
from deploy.sandbox.peer.queue import job_name
from deploy.sandbox.worker.connection import JobGoneError, PeerConnection, UnreachableError

AFTER_THE_END: Final = "said after the end"
"""Details that no job may ever show."""

_LONGEST_STEP: Final = 0.2
_KEEP_ALIVES: Final = 3
_REPEATING: Final = 0.2
_TIMES: Final = 10
_FAILING: Final = 0.07


class Worker:
    """One worker; while `silent_next` is above zero, it leaves that many jobs running for ever."""

    def __init__(
        self, name: str, session: aiohttp.ClientSession, url: str, ledger: Ledger, seed: int
    ) -> None:
        self.silent_next = 0
        self._name = name
        self._peer = PeerConnection(session, url, name)
        self._ledger = ledger
        self._chance = random.Random(seed)

    async def work(self) -> None:
        """Take jobs, for ever."""
        while True:
            try:
                job = await self._peer.pull(wait=1.0)
                if job is not None:
                    await self._run(job)
            except (JobGoneError, UnreachableError):
                continue
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)

    async def _run(self, job: dict[str, Any]) -> None:
        await self._report(job, "pulled")
        await self._report(job, "preprocessing")
        await self._report(job, "running", "started")
        number = job["job"]["meta"]["job_id"]
        self._ledger.ran(job_name(job), Run(number, job["id"], self._name))
        if self.silent_next:
            self.silent_next -= 1
            self._ledger.silences += 1
            return
        for _ in range(_KEEP_ALIVES):
            await self._report(job, "running")
        fails = self._chance.random() < _FAILING
        if fails:
            await self._report(job, "error")
        await self._report(job, "postprocessing")
        if fails:
            await self._report(job, "error", "the log's tail")
        else:
            await self._report(job, "finished")
            await self._say_too_much(job)

    async def _say_too_much(self, job: dict[str, Any]) -> None:
        """Some tell the end again and again, and some go on as if it had not been told."""
        if self._chance.random() < _REPEATING:
            await asyncio.gather(*(self._report(job, "finished") for _ in range(_TIMES)))
        if self._chance.random() < _REPEATING:
            await self._report(job, "running", AFTER_THE_END)

    async def _report(self, job: dict[str, Any], status: str, details: str | None = None) -> None:
        await self._peer.report(job["id"], status, details)
        self._ledger.succeeded(REPORTED)
        await asyncio.sleep(self._chance.random() * _LONGEST_STEP)
