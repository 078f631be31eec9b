"""What a user does with jobs. Each is deleted some time after its end, a few right away."""

import io
import random
import time
import zipfile
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.seed import APPLICATION
from benchmarks.soak.ledger import SUBMITTED, Ledger
from benchmarks.steady.requests import Client
from benchmarks.steady.workers import RESULT_SIZE

IMPATIENT: Final = 0.1
"""The part of the jobs that is deleted before the end."""

_LONGEST_PATIENCE: Final = 8.0
_FINAL: Final = ("finished", "error")


@dataclass
class Job:
    """`delete_at` is a moment of the monotonic clock."""

    id: int
    name: str
    delete_at: float
    impatient: bool
    status: str = "queued"


class Jobs:
    """One user's jobs. `lifetime` in seconds; `endings` are the subjects of the mails to come."""

    def __init__(
        self, name: str, client: Client, ledger: Ledger, chance: random.Random, lifetime: float
    ) -> None:
        self.alive: list[Job] = []
        self.endings: list[str] = []
        self._name = name
        self._client = client
        self._ledger = ledger
        self._chance = chance
        self._lifetime = lifetime
        self._count = 0

    async def submit(self) -> None:
        self._count += 1
        name = f"{self._name}-{self._count}"
        self._ledger.asked.add(name)
        got = await self._client.send(
            "submission", "POST", "/jobs", json=self.body(name), expected=(201,)
        )
        if got.status != 201:
            return
        self._ledger.accepted.add(name)
        self._ledger.succeeded(SUBMITTED)
        impatient = self._chance.random() < IMPATIENT
        life = (
            self._chance.random() * _LONGEST_PATIENCE
            if impatient
            else self._lifetime * self._chance.uniform(0.8, 1.2)
        )
        self.alive.append(Job(got.json["id"], name, time.monotonic() + life, impatient))

    def body(self, name: str) -> dict[str, Any]:
        return {
            "job_name": name,
            "application": APPLICATION,
            "attributes": {"files_down": {"config_id": "exp1", "data_ids": ["exp1"]}},
            "priority": self._chance.randrange(6),
        }

    async def list_all(self) -> None:
        got = await self._client.send("job list", "GET", "/jobs")
        wanted = [job.id for job in reversed(self.alive)][:100]
        self._client.check("job list", _ids(got.json) == wanted, f"not {wanted}")

    async def list_page(self) -> None:
        offset = self._chance.randrange(len(self.alive) + 1)
        got = await self._client.send(
            "page of the job list", "GET", f"/jobs?offset={offset}&limit=10"
        )
        wanted = [job.id for job in reversed(self.alive)][offset : offset + 10]
        self._client.check("page of the job list", _ids(got.json) == wanted, f"not {wanted}")

    async def look(self) -> None:
        """At one of the jobs; one that has ended for the first time: at its results."""
        if self.alive:
            await self._look_at(self._chance.choice(self.alive[-10:]))

    async def tidy_up(self) -> None:
        """Delete what is due, once it has ended."""
        now = time.monotonic()
        for job in [job for job in self.alive if job.delete_at < now]:
            if not job.impatient and job.status not in _FINAL:
                await self._look_at(job)
            if job.impatient or job.status in _FINAL:
                await self._delete(job)

    async def _look_at(self, job: Job) -> None:
        before = job.status
        got = await self._client.send("job", "GET", f"/jobs/{job.id}")
        if got.status != 200:
            return
        job.status = got.json["status"]
        if before not in _FINAL and job.status == "finished":
            await self._fetch_results(job)
        if before not in _FINAL and job.status in _FINAL and not job.impatient:
            self.endings.append(f"Job {job.name} (id={job.id}) {job.status}")

    async def _fetch_results(self, job: Job) -> None:
        log, artifact = f"log/{job.name}", f"artifact/{job.name}"
        got = await self._client.send("listing", "GET", f"/files/{log}")
        paths = [entry["path"] for entry in got.json]
        self._client.check("listing", paths == [f"{log}/run.log"], f"{log}: {paths}")
        await self._client.send("download", "GET", f"/files/{log}/run.log/download")
        got = await self._client.send("zip", "GET", f"/files/{artifact}/download")
        with zipfile.ZipFile(io.BytesIO(got.body)) as packed:
            sizes = [item.file_size for item in packed.infolist() if not item.is_dir()]
        self._client.check("zip", sizes == [RESULT_SIZE], f"{artifact}: {sizes}")

    async def _delete(self, job: Job) -> None:
        self._ledger.perhaps_deleted.add(job.name)
        self.alive.remove(job)
        await self._client.send("deletion of a job", "DELETE", f"/jobs/{job.id}", expected=(204,))
        self._ledger.deleted.add(job.name)
        await self._client.send("refused: a deleted job", "GET", f"/jobs/{job.id}", expected=(404,))


def _ids(jobs: list[dict[str, Any]]) -> list[int]:
    return [job["id"] for job in jobs]
