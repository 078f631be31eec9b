"""Submissions under an `Idempotency-Key`, repeated after failures, now and then without one."""

import random
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.soak.client import Client, Response
from benchmarks.soak.jobs import Jobs
from benchmarks.soak.ledger import Keyed, Ledger

_BATCHES: Final = 0.5
_BATCH_SIZES: Final = (2, 5)
_REPEATABLE: Final = 20


@dataclass(frozen=True)
class _Submission:
    key: str
    path: str
    body: dict[str, Any]


class Retries:
    """One user's submissions of jobs and batches under keys.

    Each connection goes to the next gateway, so a repetition often reaches another one.
    """

    def __init__(self, client: Client, ledger: Ledger, chance: random.Random, jobs: Jobs) -> None:
        self._client = client
        self._ledger = ledger
        self._chance = chance
        self._jobs = jobs
        self._sent: list[_Submission] = []

    async def submit(self) -> None:
        """Submit a job or a batch under a new key, with the same key after a failure."""
        is_batch = self._chance.random() < _BATCHES
        count = self._chance.randint(*_BATCH_SIZES) if is_batch else 1
        names = [self._jobs.new_name() for _ in range(count)]
        path, body = "/jobs", self._jobs.body(names[0])
        if is_batch:
            del body["job_name"]
            path = "/jobs/batch"
            body = {"template": body, "jobs": [{"job_name": name} for name in names]}
        submission = _Submission(f"key of {names[0]}", path, body)
        self._ledger.keyed[submission.key] = Keyed(names)
        response = await self._send("batch" if is_batch else "submission with a key", submission)
        if response.status == 201:
            self._sent = [*self._sent, submission][-_REPEATABLE:]
            for job in response.json["jobs"] if is_batch else [response.json]:
                self._jobs.add(job["id"], job["job_name"])

    async def repeat(self) -> None:
        """Repeat a request that has an answer; its jobs may be deleted by now."""
        if not self._sent:
            await self.submit()
            return
        response = await self._send("replay", self._chance.choice(self._sent))
        replayed = response.headers.get("Idempotent-Replayed")
        self._client.check("replay", replayed == "true", f"Idempotent-Replayed: {replayed}")

    async def _send(self, kind: str, submission: _Submission) -> Response:
        headers = {**self._client.headers, "Idempotency-Key": f'"{submission.key}"'}
        response = await self._client.send(
            kind, "POST", submission.path,
            json=submission.body, headers=headers, expected=(201,),
        )  # fmt: skip
        if response.status == 201:
            self._ledger.keyed[submission.key].bodies.append(response.body)
        return response
