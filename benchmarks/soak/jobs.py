"""A user's jobs: submitted, observed, and deleted, a few of them at once."""

import io
import random
import time
import zipfile
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.seed import APPLICATION
from benchmarks.soak.client import Client
from benchmarks.soak.ledger import SUBMITTED, Ledger
from benchmarks.soak.workers import RESULT_SIZE

_WITHDRAWN: Final = 0.1
_LONGEST_WITHDRAWAL: Final = 5.0
_LIST_LIMIT: Final = 100
_FINAL: Final = ("finished", "error")


@dataclass
class Job:
    """A job as its user knows it; one that is `withdrawn` is deleted before its end.

    `delete_at` is a time of the monotonic clock.
    """

    id: int
    name: str
    delete_at: float
    withdrawn: bool
    status: str = "queued"


class Jobs:
    """One user's jobs, which are deleted about `lifetime` seconds after their submission."""

    def __init__(
        self, name: str, client: Client, ledger: Ledger, chance: random.Random, lifetime: float
    ) -> None:
        self.existing: list[Job] = []
        self._name = name
        self._client = client
        self._ledger = ledger
        self._chance = chance
        self._lifetime = lifetime
        self._count = 0

    async def submit(self) -> None:
        name = self.new_name()
        response = await self._client.send(
            "submission", "POST", "/jobs", json=self.body(name), expected=(201,), repeated=(409,)
        )
        if response.status in {201, 409}:
            number = response.json["id"] if response.status == 201 else await self._find(name)
            self.add(number, name)

    def new_name(self) -> str:
        """The name of a job that is about to be submitted."""
        self._count += 1
        name = f"{self._name}-{self._count}"
        self._ledger.requested.add(name)
        return name

    def add(self, number: int, name: str) -> None:
        """Take up a job that was accepted."""
        self._ledger.accepted.add(name)
        self._ledger.succeeded(SUBMITTED)
        withdrawn = self._chance.random() < _WITHDRAWN
        life = self._lifetime * self._chance.uniform(0.8, 1.2)
        if withdrawn:
            life = self._chance.random() * _LONGEST_WITHDRAWAL
        self.existing.append(Job(number, name, time.monotonic() + life, withdrawn))

    async def _find(self, name: str) -> int:
        """The id of a job whose submission had its effect but no response."""
        response = await self._client.send("job list", "GET", "/jobs?limit=10000")
        return next(int(job["id"]) for job in response.json if job["job_name"] == name)

    def body(self, name: str) -> dict[str, Any]:
        inputs, priority = {"config_id": "exp1", "data_ids": ["exp1"]}, self._chance.randrange(6)
        job = {"job_name": name, "application": APPLICATION, "priority": priority}
        return job | {"attributes": {"files_down": inputs}}

    async def list_first(self) -> None:
        await self._list("job list", "/jobs", 0, _LIST_LIMIT)

    async def list_page(self) -> None:
        offset = self._chance.randrange(len(self.existing) + 1)
        await self._list("job list, a page", f"/jobs?offset={offset}&limit=10", offset, 10)

    async def _list(self, kind: str, path: str, offset: int, limit: int) -> None:
        response = await self._client.send(kind, "GET", path)
        wanted = [job.id for job in reversed(self.existing)][offset : offset + limit]
        found = [job["id"] for job in response.json]
        self._client.check(kind, found == wanted, f"{found}, not {wanted}")

    async def observe(self) -> None:
        """Read a job, and its results when it has just finished."""
        if self.existing:
            await self._observe(self._chance.choice(self.existing[-10:]))

    async def cancel(self) -> None:
        """Cancel a job, which may have ended or been cancelled before."""
        candidates = [job for job in self.existing[-2:] if not job.withdrawn]
        if not candidates:
            await self.submit()
            return
        job = self._chance.choice(candidates)
        response = await self._client.send(
            "cancellation", "POST", f"/jobs/{job.id}/cancel",
            json={"reason": "soaked"}, expected=(202, 409),
        )  # fmt: skip
        if response.status == 202:
            self._ledger.cancelled.add(job.name)
            job.status = response.json["status"]
            self._client.check("cancellation", job.status == "error", job.status)

    async def delete_due(self) -> None:
        """Delete the jobs whose time has come, once they have ended."""
        now = time.monotonic()
        for job in [job for job in self.existing if job.delete_at < now]:
            if not job.withdrawn and job.status not in _FINAL:
                await self._observe(job)
            if job.withdrawn or job.status in _FINAL:
                await self._delete(job)

    async def _observe(self, job: Job) -> None:
        before = job.status
        response = await self._client.send("job", "GET", f"/jobs/{job.id}")
        if response.status != 200:
            return
        job.status = response.json["status"]
        if before in _FINAL:
            return
        if job.status == "finished":
            await self._fetch_results(job)
        if job.status in _FINAL and not job.withdrawn:  # a cancelled one is not observed again
            self._ledger.endings.append(f"Job {job.name} (id={job.id}) {job.status}")

    async def _fetch_results(self, job: Job) -> None:
        log, artifact = f"log/{job.name}", f"artifact/{job.name}"
        response = await self._client.send("listing", "GET", f"/files/{log}")
        paths = [entry["path"] for entry in response.json]
        self._client.check("listing", paths == [f"{log}/run.log"], f"{log}: {paths}")
        await self._client.send("download", "GET", f"/files/{log}/run.log/download")
        response = await self._client.send("zip", "GET", f"/files/{artifact}/download")
        with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
            sizes = [item.file_size for item in archive.infolist() if not item.is_dir()]
        self._client.check("zip", sizes == [RESULT_SIZE], f"{artifact}: {sizes}")

    async def _delete(self, job: Job) -> None:
        self._ledger.perhaps_deleted.add(job.name)
        self.existing.remove(job)
        path = f"/jobs/{job.id}"
        kind = "deletion of a job"
        await self._client.send(kind, "DELETE", path, expected=(204,), repeated=(404,))
        self._ledger.deleted.add(job.name)
        await self._client.send("refused: deleted job", "GET", path, expected=(404,))
