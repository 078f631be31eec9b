"""Workers that fetch inputs, report that they are alive, and store results."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.soak.ledger import Run
from benchmarks.soak.workers import Worker
from deploy.sandbox.peer.queue import job_name

FAILING: Final = 0.07
"""The part of the jobs that end in error."""

RESULT_SIZE: Final = 40_000
"""Bytes of a finished job's artifact."""

UPDATES: Final = "status updates"
"""How the ledger calls the workers' reports that were answered."""

_KEEP_ALIVES: Final = (1, 5)
_KEEP_ALIVE_EVERY: Final = 1.5


class SteadyWorker(Worker):
    """Takes some seconds for a job."""

    async def _run(self, job: dict[str, Any]) -> None:
        await self._report(job, "pulled")
        await self._report(job, "preprocessing")
        with tempfile.TemporaryDirectory(prefix="opencloud-worker-") as name:
            await self._work_on(job, Path(name))

    async def _report(self, job: dict[str, Any], status: str, details: str | None = None) -> None:
        await super()._report(job, status, details)
        self._ledger.answers[UPDATES] += 1

    async def _work_on(self, job: dict[str, Any], folder: Path) -> None:
        entry = job["id"]
        for path in job["job"]["handler"]["files_down"]:
            await self._peer.download(entry, path, folder / "input")
        await self._report(job, "running", "started")
        self._ledger.ran(job_name(job), Run(job["job"]["meta"]["job_id"], entry, self._name))
        for _ in range(self._chance.randint(*_KEEP_ALIVES)):
            await asyncio.sleep(_KEEP_ALIVE_EVERY)
            await self._report(job, "running")
        log = folder / "run.log"
        log.write_bytes(b"an epoch like any other\n" * 100)
        await self._peer.upload(entry, "log", "run.log", log)
        if self._chance.random() < FAILING:
            await self._report(job, "error", "the log's tail")
            return
        await self._report(job, "postprocessing")
        result = folder / "model.pt"
        result.write_bytes(bytes(RESULT_SIZE))
        await self._peer.upload(entry, "artifact", "model/model.pt", result)
        await self._report(job, "finished")
