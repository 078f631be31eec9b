"""A small worker-facing API, and dispatchers in this process or in their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from common.config.settings import AdminSettings, LogSettings, StorageSettings
from common.database.engine import Database
from common.database.tables import handovers
from common.jobs.lifecycle import Report, Source, Status
from common.jobs.updates import Applied, apply_worker_report
from common.outbox.laned import LanedOutbox
from devtools.database import database_settings
from devtools.user_pool import INTERNAL_KEY as KEY
from dispatcher.handover import Handover
from dispatcher.settings import Settings
from tests.support.fakes import serving

Behaviour = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse | None]]


class FakePeer:
    """Takes jobs into a queue of its own, without looking for duplicates.

    `behave` may answer a submission instead (None: take it); `arrived` is what has been taken, for
    workers; `statuses` are answers to questions.
    """

    def __init__(self) -> None:
        self.url = ""
        self.key = KEY
        self.tried: list[int] = []
        self.taken: list[int] = []
        self.arrived: asyncio.Queue[int] = asyncio.Queue()
        self.request_ids: list[str | None] = []
        self.probes = 0
        self.behave: Behaviour | None = None
        self.statuses: dict[int, str] = {}
        self.asked: list[int] = []

    async def submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = body["job"]["meta"]["job_id"]
        self.tried.append(number)
        self.request_ids.append(request.headers.get("X-Request-ID"))
        if request.headers.get("x-api-key") != self.key:
            return web.json_response({"detail": "unauthorized"}, status=401)
        if self.behave is not None:
            answer = await self.behave(request, body)
            if answer is not None:
                return answer
        self.taken.append(number)
        self.arrived.put_nowait(number)
        return web.json_response(body, status=201)

    async def probe(self, _: web.Request) -> web.Response:
        self.probes += 1
        return web.json_response({"openapi": "3.1.0"})

    async def question(self, request: web.Request) -> web.Response:
        number = int(request.match_info["job_id"])
        self.asked.append(number)
        if number not in self.statuses:
            return web.json_response({"detail": "Not Found"}, status=404)
        return web.json_response(self.statuses[number])

    @asynccontextmanager
    async def served(self, port: int | None = None) -> AsyncIterator[FakePeer]:
        routes = [
            web.post("/_jobs", self.submit),
            web.get("/openapi.json", self.probe),
            web.get("/_jobs/{job_id}/status", self.question),
        ]
        async with serving(routes, port) as self.url:
            yield self


def answering(code: int, **headers: str) -> Callable[[], web.StreamResponse]:
    """Answers with this status."""
    return lambda: web.json_response({"detail": f"status {code}"}, status=code, headers=headers)


def numbered(answers: dict[int, Callable[[], web.StreamResponse]]) -> Behaviour:
    """Answer the jobs with these numbers so, and take the others."""

    async def behave(_: web.Request, body: dict[str, Any]) -> web.StreamResponse | None:
        answer = answers.get(body["job"]["meta"]["job_id"])
        return answer() if answer else None

    return behave


def always(answer: Callable[[], web.StreamResponse]) -> Behaviour:
    """Answer every job so."""

    async def behave(_: web.Request, __: dict[str, Any]) -> web.StreamResponse | None:
        return answer()

    return behave


def dispatcher_settings(url: str, peer_url: str, folder: Path, **changes: Any) -> Settings:
    settings = Settings(
        database=database_settings(url),
        storage=StorageSettings(kind="local", root=str(folder / "user_data")),
        admin=AdminSettings(host="127.0.0.1", port=0),
        logs=LogSettings(),
        applications=str(folder / "applications.yaml"),
        worker_api_url=peer_url,
        internal_key=KEY,
        status_path="",
        handover_timeout=30.0,
        handover_grace=1.0,
        handover_concurrency=8,
        handover_retention=86_400.0,
        idempotency_retention=86_400.0,
        stale_after=120.0,
        silence_default_timeout=86_400.0,
        silence_margin=3_600.0,
        reconcile_interval=0.2,
        usage_interval=0.5,
        shutdown_grace=5.0,
    )
    return replace(settings, **changes)


def outbox_of(database: Database) -> LanedOutbox[Handover]:
    """The hand-overs, as one dispatcher claims them."""
    return LanedOutbox(database, handovers, Handover, lease=60.0, patience=5.0)


def environment(url: str, peer_url: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Environment of a dispatcher process."""
    return {
        "DATABASE_URL": url,
        "WORKERFACING_API_URL": peer_url,
        "INTERNAL_API_KEY_SECRET": KEY,
        "USER_DATA_ROOT_PATH": folder / "user_data",
        "HANDOVER_TIMEOUT": 1,
        "HANDOVER_GRACE": 1,
        **changes,
    }


async def hear(
    database: Database, number: int, status: str = "running", details: str | None = None
) -> Applied | None:
    """A worker reports under this number, as the gateway takes it in."""
    async with database.transaction() as tx:
        return await apply_worker_report(tx, number, Report(Status(status), details, Source.WORKER))
