"""What clients do wrong: requests that are refused, transfers that are broken off."""

import random
from typing import Any, Final

from benchmarks.seed import APPLICATION
from benchmarks.steady.files import MOVIE, MOVIE_FOLDER, Files
from benchmarks.steady.jobs import Jobs
from benchmarks.steady.requests import Client

_CUT: Final = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="cut.bin"\r\n\r\n'
_SENT: Final = 300_000
_READ: Final = 100_000


class Troubles:
    """Of one user; after each the user's files and jobs are what they were."""

    def __init__(self, client: Client, files: Files, jobs: Jobs, chance: random.Random) -> None:
        self._client = client
        self._files = files
        self._jobs = jobs
        self._chance = chance

    async def ask_without_token(self) -> None:
        """On a connection of its own."""
        await self._refused("no token", 401, "GET", "/jobs", headers={"Connection": "close"})

    async def ask_with_a_wrong_token(self) -> None:
        head, _, _ = self._client.headers["Authorization"].rpartition(".")
        await self._refused(
            "another signature", 401, "GET", "/user", headers={"Authorization": f"{head}.c2lnbg"}
        )
        await self._refused(
            "no token at all", 401, "POST", "/jobs", headers={"Authorization": "Bearer nonsense"}
        )

    async def ask_for_what_is_not_there(self) -> None:
        number = self._chance.randrange(1 << 40)
        await self._refused("unknown job", 404, "GET", f"/jobs/{number}")
        await self._refused("unknown file", 404, "GET", f"/files/data/{number}/download")
        await self._refused("unknown route", 404, "GET", f"/nowhere/{number}")
        await self._refused("wrong method", 405, "PATCH", "/jobs")

    async def submit_nonsense(self) -> None:
        job = self._jobs.body("nonsense")
        wrong = {**job, "application": {**APPLICATION, "version": "v0"}}
        await self._refused("unknown application", 422, "POST", "/jobs", json=wrong)
        await self._refused("no JSON", 422, "POST", "/jobs", data=b"{")
        missing = {**job, "attributes": {"files_down": {"config_id": "missing"}}}
        await self._refused("missing input", 400, "POST", "/jobs", json=missing)
        if self._jobs.alive:
            taken = self._jobs.body(self._jobs.alive[-1].name)
            await self._refused("name taken", 409, "POST", "/jobs", json=taken)

    async def upload_nonsense(self) -> None:
        await self._refused("bad type", 422, "POST", "/files/nowhere/x/upload", data={"file": "x"})
        await self._refused("no file", 422, "POST", "/files/data/x/upload", data={"other": "x"})
        await self._refused("outside", 404, "GET", "/files/data/%2e%2e/%2e%2e/etc/download")

    async def pretend_to_be_the_worker_facing_api(self) -> None:
        report = {"job_id": 1, "status": "finished"}
        await self._refused(
            "wrong internal key",
            401,
            "PUT",
            "/_job_status",
            json=report,
            headers={"x-api-key": "guessed"},
        )

    async def abort_upload(self) -> None:
        """Break off in the middle; later listings tell whether anything was left."""
        sent = _CUT + bytes(_SENT)
        request = self._raw("POST", "/files/data/set0/upload", length=2 * len(sent)) + sent
        await self._client.abort("upload, broken off", request)

    async def abort_download(self) -> None:
        """Break off the large file's download, or the zip with it."""
        if MOVIE in self._files.known:
            path = self._chance.choice([MOVIE, MOVIE_FOLDER])
            request = self._raw("GET", f"/files/{path}/download")
            await self._client.abort("download, broken off", request, after=_READ)

    async def _refused(self, why: str, status: int, method: str, path: str, **parts: Any) -> None:
        await self._client.send(f"refused: {why}", method, path, expected=(status,), **parts)

    def _raw(self, method: str, path: str, length: int | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self._client.headers.items()]
        if length is not None:
            lines.append("Content-Type: multipart/form-data; boundary=cut")
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()
