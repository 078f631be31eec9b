"""Traffic of users and workers through one address; no failure is forgiven."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from devtools.user_pool import INTERNAL_KEY
from tests.support.gateway import job_body, multipart

STATUSES = ("pulled", "running", "running", "postprocessing", "finished")
LARGE = 12 << 20
PIECES = 25
PAUSE = 0.1


class Traffic:
    """Requests one after the other on each of several kept connections; what came of each."""

    def __init__(self, url: str, internal_url: str, token: str, tree: Path) -> None:
        self.going = True
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.farewells = 0
        self.accepted: list[int] = []
        self.finished: list[int] = []
        self.arrived: asyncio.Queue[int] = asyncio.Queue()
        self._url = url
        self._internal_url = internal_url
        self._user = {"Authorization": f"Bearer {token}"}
        self._tree = tree
        self._large = hashlib.sha256(b"large").digest() * (LARGE // 32)
        (tree / "data" / "large").mkdir(parents=True)
        (tree / "data" / "large" / "file").write_bytes(self._large)

    def users(self) -> list[Coroutine[Any, Any, None]]:
        """Each goes on while `going`, and then finishes what it has begun."""
        once = [self._submit, self._submit, self._look, self._exchange, self._exchange]
        slow = [self._upload_slowly, self._download_slowly]
        return [work() for work in (*once, *slow, *slow)]

    def workers(self) -> list[Coroutine[Any, Any, None]]:
        """Each works on one job after the other, until cancelled."""
        return [self._work() for _ in range(6)]

    # -- users ---------------------------------------------------------------------------------

    async def _submit(self) -> None:
        async with self._client() as client:
            while self.going:
                body = job_body(job_name=f"job-{uuid4().hex}", attributes={"files_down": {}})
                answer = await self._send(client, "submission", "POST", "/jobs", json=body)
                if answer is not None:
                    self.accepted.append(answer["id"])
                await asyncio.sleep(0.3)

    async def _look(self) -> None:
        async with self._client() as client:
            while self.going:
                await self._send(client, "list of jobs", "GET", "/jobs?limit=10")
                if self.accepted:
                    await self._send(client, "job", "GET", f"/jobs/{self.accepted[-1]}")
                await asyncio.sleep(PAUSE)

    async def _exchange(self) -> None:
        """Small files up and down."""
        directory = uuid4().hex
        turn = 0
        async with self._client() as client:
            while self.going:
                turn += 1
                content = f"{directory}-{turn}".encode() * 100
                body, kind = multipart("file", content)
                place = f"/files/data/{directory}"
                headers = {"Content-Type": kind}
                await self._send(
                    client, "upload", "POST", f"{place}/upload", data=body, headers=headers
                )
                found = await self._send(
                    client, "download", "GET", f"{place}/file/download", read=_read_bytes
                )
                if found is not None:
                    self._compare("download", found == content)
                await asyncio.sleep(PAUSE)

    async def _upload_slowly(self) -> None:
        while self.going:
            name = uuid4().hex
            content = name.encode() * 20_000
            body, kind = multipart(name, content)
            headers = {"Content-Type": kind, "Content-Length": str(len(body))}
            async with self._client() as client:
                path = "/files/data/slow/upload"
                answer = await self._send(
                    client, "slow upload", "POST", path, data=_slowly(body), headers=headers
                )
            if answer is not None:
                stored = await asyncio.to_thread((self._tree / "data" / "slow" / name).read_bytes)
                self._compare("slow upload", stored == content)

    async def _download_slowly(self) -> None:
        while self.going:
            async with self._client() as client:
                path = "/files/data/large/file/download"
                found = await self._send(client, "slow download", "GET", path, read=_read_slowly)
                if found is not None:
                    self._compare("slow download", found == self._large)

    # -- workers -------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with self._client(self._internal_url, {"x-api-key": INTERNAL_KEY}) as client:
            while True:
                number = await self.arrived.get()
                for status in STATUSES:
                    update = {"job_id": number, "status": status}
                    await self._send(client, "status", "PUT", "/_job_status", json=update)
                    await asyncio.sleep(PAUSE)
                self.finished.append(number)

    # -- requests ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _client(
        self, url: str | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """One connection, kept for a while, and no second try."""
        async with aiohttp.ClientSession(
            url or self._url,
            headers=headers or self._user,
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=1.0),
            timeout=aiohttp.ClientTimeout(total=60),
        ) as session:
            session._retry_connection = False
            yield session

    async def _send(
        self,
        client: aiohttp.ClientSession,
        kind: str,
        method: str,
        path: str,
        *,
        read: Callable[[aiohttp.ClientResponse], Coroutine[Any, Any, Any]] = (
            aiohttp.ClientResponse.json
        ),
        **parts: Any,
    ) -> Any:
        """What a good answer says; None where there was none."""
        try:
            async with client.request(method, path, **parts) as answer:
                body = await read(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self.outcomes[kind, repr(error)] += 1
            return None
        self.outcomes[kind, str(answer.status)] += 1
        self.farewells += answer.headers.get("Connection") == "close"
        return body if answer.ok else None

    def _compare(self, kind: str, equal: bool) -> None:
        if not equal:
            self.outcomes[kind, "other bytes"] += 1


async def _slowly(body: bytes) -> AsyncIterator[bytes]:
    step = len(body) // PIECES + 1
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(PAUSE)


async def _read_slowly(answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    pause_after = LARGE // PIECES
    async for piece in answer.content.iter_any():
        found += piece
        if len(found) >= pause_after:
            pause_after += LARGE // PIECES
            await asyncio.sleep(PAUSE)
    return bytes(found)


async def _read_bytes(answer: aiohttp.ClientResponse) -> bytes:
    return await answer.read()
