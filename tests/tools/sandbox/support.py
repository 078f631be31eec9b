"""A fake gateway, a peer on a real socket, and bodies to submit to it."""

from collections.abc import Awaitable, Callable, Mapping
from json import loads
from typing import Any, Generic, TypeVar

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from deploy.sandbox.peer import Peer

KEY = "internal key"

T = TypeVar("T")


class FakeGateway:
    """Records status updates; `answer` decides the status of each response."""

    def __init__(self) -> None:
        self.updates: list[tuple[int, str, str | None]] = []
        self.keys: set[str | None] = set()
        self.answer: Callable[[dict[str, Any]], int] = lambda update: 200
        self.url = ""

    async def status(self, request: web.Request) -> web.Response:
        update = await request.json()
        self.keys.add(request.headers.get("x-api-key"))
        answer = self.answer(update)
        self.updates.append((update["job_id"], update["status"], update["runtime_details"]))
        return web.json_response(update["status"], status=answer)

    def statuses(self, number: int) -> list[str]:
        """The job's statuses without keep-alives."""
        seen: list[str] = []
        for job_id, status, _ in self.updates:
            if job_id == number and seen[-1:] != [status]:
                seen.append(status)
        return seen


class Standin(Generic[T]):
    """A client of a stand-in, which serves a real socket; `state` is the stand-in's own."""

    headers: Mapping[str, str] = {}

    def __init__(self, server: TestServer, key: web.AppKey[T], session: aiohttp.ClientSession):
        self.url = str(server.make_url("")).rstrip("/")
        self.state = server.app[key]
        self._session = session

    async def call(self, method: str, path: str, **kw: Any) -> tuple[int, Any]:
        """Status, and the body's JSON or text."""
        kw = {"headers": self.headers, **kw}
        async with self._session.request(method, self.url + path, **kw) as response:
            text = await response.text()
            json = response.content_type == "application/json"
            return response.status, loads(text or "null") if json else text

    async def faults(self, *rules: dict[str, Any], **switches: Any) -> None:
        status, answer = await self.call("PUT", "/_faults", json={"rules": rules, **switches})
        assert status == 200, answer


class RunningPeer(Standin[Peer]):
    """A client of the peer."""

    async def submit(self, number: int, key: str = KEY, **parts: Any) -> tuple[int, Any]:
        body = submission(number, **parts)
        return await self.call("POST", "/_jobs", json=body, headers={"x-api-key": key})

    def post(self, number: int = 1, **options: Any) -> Any:
        """A submission's request, for its raw response."""
        url, headers = self.url + "/_jobs", {"x-api-key": KEY}
        return self._session.post(url, json=submission(number), headers=headers, **options)

    async def submit_and_pull(self, number: int = 1, worker: str = "w1", **parts: Any) -> int:
        """The entry of a submission that the worker has pulled."""
        await self.submit(number, **parts)
        _, job = await self.pull(worker)
        assert job["job"]["meta"]["job_id"] == number
        return int(job["id"])

    async def queue(self) -> list[dict[str, Any]]:
        _, found = await self.call("GET", "/_queue")
        return list(found)

    async def pull(self, worker: str = "w1") -> tuple[int, Any]:
        return await self.call("POST", f"/workers/{worker}/pull")

    async def report(self, entry: int, status: str, worker: str = "w1") -> tuple[int, Any]:
        path = f"/entries/{entry}/status?worker={worker}"
        return await self.call("PUT", path, json={"status": status, "runtime_details": None})


def submission(
    number: int,
    *,
    priority: int = 0,
    environment: str | None = None,
    name: str = "train",
    cmd: list[str] | None = None,
    env: dict[str, str] | None = None,
    files_down: dict[str, str] | None = None,
    files_up: dict[str, str] | None = None,
    root: str = "user_data",
) -> dict[str, Any]:
    """A body of POST /_jobs."""
    return {
        "job": {
            "app": {"cmd": cmd or ["true"], "env": env},
            "handler": {
                "image_url": "localhost/app",
                "image_name": "app",
                "image_version": "v1",
                "entrypoint": "run",
                "files_down": files_down or {},
                "files_up": files_up or {"log": "log", "output": "output"},
            },
            "meta": {"job_id": number, "date_created": "2026-01-01T12:00:00.123456"},
            "hardware": {},
        },
        "environment": environment,
        "group": None,
        "priority": priority,
        "paths_upload": {kind: f"{root}/u/{kind}/{name}" for kind in ("output", "log", "artifact")},
    }


StartPeer = Callable[..., Awaitable[RunningPeer]]
