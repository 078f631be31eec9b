"""Workers that fetch inputs, report, and store results; they run nothing."""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.soak.ledger import REPORTED, Ledger, Run
from deploy.sandbox.peer.queue import job_name
from deploy.sandbox.worker.connection import JobGoneError, PeerConnection, UnreachableError

AFTER_THE_END: Final = "reported after the end"
"""Details that no job may ever show."""

RESULT_SIZE: Final = 40_000
"""Bytes of the artifact of a finished job."""

_LONGEST_STEP: Final = 0.2
_KEEP_ALIVES: Final = (1, 5)
_FAILING: Final = 0.07
_REPEATING: Final = 0.2
_REPEATS: Final = 10


class Worker:
    """A worker that keeps a job alive every `keep_alive` seconds.

    While `to_abandon` is above zero, it leaves that many jobs running without a further report.
    """

    def __init__(
        self, name: str, session: aiohttp.ClientSession, url: str, ledger: Ledger,
        chance: random.Random, keep_alive: float,
    ) -> None:  # fmt: skip
        self.to_abandon = 0
        self._name = name
        self._peer = PeerConnection(session, url, name)
        self._ledger = ledger
        self._chance = chance
        self._keep_alive = keep_alive

    async def work(self) -> None:
        """Take jobs until cancelled."""
        while True:
            try:
                job = await self._peer.pull(wait=1.0)
                if job is not None:
                    with tempfile.TemporaryDirectory(prefix="opencloud-worker-") as folder:
                        await self._run(job, Path(folder))
            except (JobGoneError, UnreachableError):
                continue
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)

    async def _run(self, job: dict[str, Any], folder: Path) -> None:
        await self._report(job, "pulled")
        await self._report(job, "preprocessing")
        for path in job["job"]["handler"]["files_down"]:
            await self._peer.download(job["id"], path, folder / "input")
        await self._report(job, "running", "started")
        number = job["job"]["meta"]["job_id"]
        self._ledger.runs[job_name(job)].append(Run(number, job["id"], self._name))
        if self.to_abandon:
            self.to_abandon -= 1
            self._ledger.stalled += 1
            return
        for _ in range(self._chance.randint(*_KEEP_ALIVES)):
            await asyncio.sleep(self._keep_alive)
            await self._report(job, "running")
        await self._store(job, "log", "run.log", b"an epoch like any other\n" * 100, folder)
        if self._chance.random() < _FAILING:
            await self._report(job, "error")
            await self._report(job, "postprocessing")
            await self._report(job, "error", "the log's tail")
            return
        await self._report(job, "postprocessing")
        await self._store(job, "artifact", "model/model.pt", bytes(RESULT_SIZE), folder)
        await self._report(job, "finished")
        await self._report_after_the_end(job)

    async def _store(
        self, job: dict[str, Any], kind: str, path: str, content: bytes, folder: Path
    ) -> None:
        source = folder / "result"
        source.write_bytes(content)
        await self._peer.upload(job["id"], kind, path, source)

    async def _report_after_the_end(self, job: dict[str, Any]) -> None:
        """Some workers repeat the end many times at once, and some go on after it."""
        if self._chance.random() < _REPEATING:
            await asyncio.gather(*(self._report(job, "finished") for _ in range(_REPEATS)))
        if self._chance.random() < _REPEATING:
            await self._report(job, "running", AFTER_THE_END)

    async def _report(self, job: dict[str, Any], status: str, details: str | None = None) -> None:
        await self._peer.report(job["id"], status, details)
        self._ledger.reports += 1
        self._ledger.succeeded(REPORTED)
        await asyncio.sleep(self._chance.random() * _LONGEST_STEP)
