"""The services as real processes on one database."""

import asyncio
import contextlib
import io
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from sqlalchemy import func, select

from common.database.engine import Database
from common.database.tables import emails, handover_numbers, handovers, job_events, jobs
from deploy.sandbox.peer import PEER, Peer, PeerSettings, create_app
from deploy.sandbox.ports import free_port
from devtools.services import Process
from devtools.user_pool import INTERNAL_KEY, USER, Issuer, trust
from tests.support.gateway import APPLICATIONS, job_body
from tests.support.notifier import environment as notifier_environment
from tests.support.tus import PORTION, metadata

PATIENT = 30
"""Seconds for a peer's answer: late rather than lost where many processes share few cores."""

on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
on_own_server = pytest.mark.parametrize("database_url", ["server"], indirect=True)
"""For tests whose subject does not depend on the database, or is tried on both elsewhere."""


@dataclass(frozen=True)
class Answer:
    """A response, and the seconds until its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def text(self) -> str:
        return self.body.decode()


class Caller:
    """Sends requests of a user and of the worker-facing API to a gateway.

    A status of None means that the connection broke.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self._url = url
        self.headers = {"Authorization": f"Bearer {token}"}

    async def submit(self, name: str) -> tuple[int | None, int]:
        """Status and id of a job without inputs."""
        body = job_body(job_name=name, attributes={"files_down": {}})
        status, answer = await self._send("POST", "/jobs", headers=self.headers, json=body)
        return status, answer["id"] if status == 201 else 0

    async def delete(self, job_id: int) -> int | None:
        return (await self._send("DELETE", f"/jobs/{job_id}", headers=self.headers))[0]

    async def report(self, number: int, status: str, details: str | None = None) -> int | None:
        body = {"job_id": number, "status": status, "runtime_details": details}
        headers = {"x-api-key": INTERNAL_KEY}
        return (await self._send("PUT", "/_job_status", headers=headers, json=body))[0]

    async def ask(self, method: str, path: str, **parts: Any) -> Answer:
        """Send a request as the user, or with other `headers`."""
        started = time.monotonic()
        async with self._session.request(
            method, self._url + path, **{"headers": self.headers, **parts}
        ) as answer:
            body = await answer.read()
        return Answer(answer.status, answer.headers, body, time.monotonic() - started)

    async def upload(self, directory: str, name: str, content: bytes) -> Answer:
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(content), filename=name)
        return await self.ask("POST", f"/files/{directory}/upload", data=form)

    async def create_upload(self, path: str, length: int, **pairs: str) -> Answer:
        headers = {"Upload-Length": str(length), "Upload-Metadata": metadata(path=path, **pairs)}
        return await self.ask_tus("POST", "/uploads", headers)

    async def begin_upload(self, path: str, length: int, **pairs: str) -> str:
        """Begin a resumable upload; the path of its URL."""
        answer = await self.create_upload(path, length, **pairs)
        assert answer.status == 201, answer
        return urlsplit(answer.headers["Location"]).path

    async def send_portion(self, target: str, offset: int, content: bytes) -> Answer:
        headers = {"Upload-Offset": str(offset), "Content-Type": PORTION}
        return await self.ask_tus("PATCH", target, headers, data=io.BytesIO(content))

    async def offset_of(self, target: str) -> int:
        """How many bytes there are of a resumable upload."""
        answer = await self.ask_tus("HEAD", target)
        assert answer.status == 200, answer
        return int(answer.headers["Upload-Offset"])

    async def ask_tus(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, **parts: Any
    ) -> Answer:
        """A request of the protocol."""
        sent = {**self.headers, "Tus-Resumable": "1.0.0", **(headers or {})}
        return await self.ask(method, target, headers=sent, **parts)

    async def _send(self, method: str, path: str, **parts: Any) -> tuple[int | None, Any]:
        try:
            async with self._session.request(method, self._url + path, **parts) as answer:
                body = await answer.read()
                return answer.status, await answer.json() if body else None
        except aiohttp.ClientError:
            return None, None


class Held:
    """Behaviour of a peer that holds its answers back, or the first one alone, until `released`.

    `reached` is set once one is held; before, `take` has had its body.
    """

    def __init__(
        self, *, first_only: bool = False, take: Callable[[Any], object] = lambda _: None
    ) -> None:
        self.reached, self.released = asyncio.Event(), asyncio.Event()
        self._first_only = first_only
        self._take = take

    async def __call__(self, _: web.Request, body: Any) -> None:
        if self._first_only and self.reached.is_set():
            return
        self._take(body)
        self.reached.set()
        await self.released.wait()


class Cloud:
    """Starts processes that share a database and a storage root; kills them at its end."""

    def __init__(
        self, url: str, folder: Path, issuer: Issuer, keys_url: str, **settings: Any
    ) -> None:
        self.folder = folder
        self.database_url = url
        self.root = folder / "user_data"
        self.applications = folder / "applications.yaml"
        self.applications.write_text(yaml.safe_dump(APPLICATIONS))
        self.port = free_port()
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self.mailjet_url = f"http://127.0.0.1:{free_port()}"
        self.token = issuer.token(USER)
        self._issuer = issuer
        self._settings = {
            **trust(keys_url),
            "DATABASE_URL": url,
            "USER_DATA_ROOT_PATH": self.root,
            "APPLICATION_CONFIG_FILE": self.applications,
            **settings,
        }
        self._processes: list[Process] = []
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        await self._session.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def caller(self) -> Caller:
        return self.caller_at(self.port)

    def caller_at(self, port: int) -> Caller:
        return Caller(self._session, f"http://127.0.0.1:{port}", self.token)

    def caller_of(self, user: str) -> Caller:
        return Caller(self._session, self.url, self.token_of(user))

    def token_of(self, user: str) -> str:
        return self._issuer.token(user)

    async def gateway(
        self, *, prefix: Sequence[str] = (), group: int | None = None, **changes: Any
    ) -> Process:
        """A gateway that answers; `prefix` and `group` as in `Process`."""
        own = {"HOST": "127.0.0.1", "PORT": self.port, **changes}
        process = self._start("gateway", own, prefix=prefix, group=group)
        await process.wait_until_ready()
        return process

    def dispatcher(self, *, group: int | None = None, **changes: Any) -> Process:
        own = {
            "WORKERFACING_API_URL": self.peer_url,
            "HANDOVER_TIMEOUT": PATIENT,
            "HANDOVER_GRACE": 0.5,
            "RECONCILE_INTERVAL": 0.2,
            **changes,
        }
        return self._start("dispatcher", own, group=group)

    def notifier(self, *, group: int | None = None, **changes: Any) -> Process:
        settings = notifier_environment(self.database_url, self.mailjet_url, EMAIL_TIMEOUT=PATIENT)
        own = {**settings, **changes}
        return self._start("notifier", own, group=group)

    def _start(self, service: str, own: Mapping[str, Any], **options: Any) -> Process:
        process = Process(service, {**self._settings, **own}, self.folder, **options)
        self._processes.append(process)
        return process

    def plant(self, path: str, content: bytes) -> None:
        """Put a file into the user's tree, past the API."""
        target = self.root / USER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    @asynccontextmanager
    async def standin_peer(self) -> AsyncIterator[Peer]:
        """The sandbox's worker-facing API on a real socket; `peer_url` is its address."""
        app = create_app(PeerSettings(gateway=self.url, key=INTERNAL_KEY, root=str(self.root)))
        async with TestServer(app) as server:
            self.peer_url = str(server.make_url("")).rstrip("/")
            yield app[PEER]


@asynccontextmanager
async def locked_jobs(cloud: Cloud, mode: str = "EXCLUSIVE") -> AsyncIterator[None]:
    """Block writers of jobs; `ACCESS EXCLUSIVE` (PostgreSQL only) also blocks readers."""
    if cloud.database_url.startswith("sqlite"):
        file = sqlite3.connect(cloud.database_url.removeprefix("sqlite:///"), isolation_level=None)
        with contextlib.closing(file):
            file.execute("BEGIN IMMEDIATE")
            yield
            file.execute("ROLLBACK")
        return
    connection: Any = await asyncpg.connect(cloud.database_url)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE jobs IN {mode} MODE")
        yield
    await connection.close()


async def orphans(database: Database) -> int:
    """Rows that belong to no job."""
    known = select(jobs.c.id)
    found = 0
    async with database.reading() as connection:
        for table in (handovers, handover_numbers, job_events, emails):
            lost = select(func.count()).where(table.c.job_id.not_in(known))
            found += int((await connection.execute(lost)).scalar_one())
    return found
