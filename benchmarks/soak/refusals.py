"""Requests that must be refused; they change nothing."""

import random
from typing import Any

from benchmarks.seed import APPLICATION
from benchmarks.soak.client import Client
from benchmarks.soak.jobs import Jobs

Refusal = tuple[str, int, str, str, dict[str, Any]]
"""Why, the expected status, method, path, and the body or headers."""


class Refusals:
    """A user's mistakes, and a stranger's attempts."""

    def __init__(self, client: Client, jobs: Jobs, chance: random.Random) -> None:
        self._client = client
        self._jobs = jobs
        self._chance = chance

    async def send_some(self) -> None:
        """Send three of them."""
        for why, status, method, path, parts in self._chance.sample(self.possible(), 3):
            kind = f"refused: {why}"
            await self._client.send(kind, method, path, expected=(status,), **parts)

    def possible(self) -> list[Refusal]:
        token, _, _ = self._client.headers["Authorization"].rpartition(".")
        number = self._chance.randrange(1 << 40)
        job = self._jobs.body("invalid")
        unknown = {**job, "application": {**APPLICATION, "version": "v0"}}
        missing = {**job, "attributes": {"files_down": {"config_id": "missing"}}}
        report = {"job_id": 1, "status": "finished"}
        refusals: list[Refusal] = [
            ("no token", 401, "GET", "/jobs", {"headers": {"Connection": "close"}}),
            ("signature", 401, "GET", "/user", {"headers": {"Authorization": f"{token}.c2lnbg"}}),
            ("token", 401, "GET", "/user", {"headers": {"Authorization": "Bearer nonsense"}}),
            ("key", 401, "PUT", "/_job_status", {"json": report, "headers": {"x-api-key": "no"}}),
            ("unknown job", 404, "GET", f"/jobs/{number}", {}),
            ("unknown file", 404, "GET", f"/files/data/{number}/download", {}),
            ("unknown route", 404, "GET", f"/nowhere/{number}", {}),
            ("method", 405, "PATCH", "/jobs", {}),
            ("application", 422, "POST", "/jobs", {"json": unknown}),
            ("no JSON", 422, "POST", "/jobs", {"data": b"{"}),
            ("missing input", 400, "POST", "/jobs", {"json": missing}),
            ("type", 422, "POST", "/files/nowhere/x/upload", {"data": {"file": "x"}}),
            ("no file", 422, "POST", "/files/data/x/upload", {"data": {"other": "x"}}),
            ("outside", 404, "GET", "/files/data/%2e%2e/%2e%2e/etc/download", {}),
        ]
        for existing in self._jobs.existing[-1:]:
            taken = self._jobs.body(existing.name)
            refusals.append(("name taken", 409, "POST", "/jobs", {"json": taken}))
        return refusals
