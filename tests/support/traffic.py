"""Traffic of users and workers through one address; every failure is recorded."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

from devtools.user_pool import INTERNAL_KEY
from tests.support.gateway import job_body, multipart

STATUSES = ("pulled", "running", "running", "postprocessing", "finished")
LARGE = 12 << 20
PIECES = 25
PAUSE = 0.1


class Connection:
    """A connection that is kept for a while; no request is repeated. Counts the outcomes."""

    def __init__(self, session: aiohttp.ClientSession, traffic: "Traffic") -> None:
        self._session = session
        self._traffic = traffic

    async def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        read: Callable[[aiohttp.ClientResponse], Awaitable[bytes]] = aiohttp.ClientResponse.read,
        **parts: Any,
    ) -> bytes | None:
        """The content of a successful response, otherwise None."""
        outcomes = self._traffic.outcomes
        try:
            async with self._session.request(method, path, **parts) as response:
                content = await read(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            outcomes[kind, repr(error)] += 1
            return None
        outcomes[kind, str(response.status)] += 1
        self._traffic.farewells += response.headers.get("Connection") == "close"
        return content if response.ok else None

    async def download(self, kind: str, path: str, expected: bytes, **parts: Any) -> None:
        found = await self.send(kind, "GET", f"/files/{path}/download", **parts)
        if found not in {None, expected}:
            self._traffic.outcomes[kind, "other bytes"] += 1


class Traffic:
    """Requests one after the other on each of several kept connections."""

    def __init__(self, url: str, internal_url: str, token: str, tree: Path) -> None:
        self.going = True
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.farewells = 0
        self.accepted: list[int] = []
        self.finished: list[int] = []
        self._url = url
        self._internal_url = internal_url
        self._user = {"Authorization": f"Bearer {token}"}
        self._large = hashlib.sha256(b"large").digest() * (LARGE // 32)
        (tree / "data" / "large").mkdir(parents=True)
        (tree / "data" / "large" / "file").write_bytes(self._large)

    async def use(self) -> None:
        """Act as several users while `going`; each then finishes what it has begun."""
        once = [self._submit, self._submit, self._look, self._exchange, self._exchange]
        slow = [self._upload_slowly, self._download_slowly]
        await asyncio.gather(*(self._repeat(act) for act in (*once, *slow, *slow)))

    async def _repeat(self, act: Callable[[Connection], Awaitable[None]]) -> None:
        async with self._connected(self._url, self._user) as connection:
            while self.going:
                await act(connection)
                await asyncio.sleep(PAUSE)

    async def work(self, arrived: asyncio.Queue[int]) -> None:
        """Act as a worker, until cancelled."""
        headers = {"x-api-key": INTERNAL_KEY}
        async with self._connected(self._internal_url, headers) as connection:
            while True:
                number = await arrived.get()
                for status in STATUSES:
                    update = {"job_id": number, "status": status}
                    await connection.send("status", "PUT", "/_job_status", json=update)
                    await asyncio.sleep(PAUSE)
                self.finished.append(number)

    async def _submit(self, connection: Connection) -> None:
        body = job_body(attributes={"files_down": {}})
        answer = await connection.send("submission", "POST", "/jobs", json=body)
        if answer is not None:
            self.accepted.append(orjson.loads(answer)["id"])
        await asyncio.sleep(2 * PAUSE)

    async def _look(self, connection: Connection) -> None:
        await connection.send("list of jobs", "GET", "/jobs?limit=10")
        if self.accepted:
            await connection.send("job", "GET", f"/jobs/{self.accepted[-1]}")

    async def _exchange(self, connection: Connection) -> None:
        directory = f"data/{uuid4().hex}"
        content = directory.encode() * 2_000
        body, kind = multipart("file", content)
        headers = {"Content-Type": kind}
        path = f"/files/{directory}/upload"
        await connection.send("upload", "POST", path, data=body, headers=headers)
        await connection.download("download", f"{directory}/file", content)

    async def _upload_slowly(self, connection: Connection) -> None:
        directory = f"data/{uuid4().hex}"
        content = directory.encode() * 20_000
        body, kind = multipart("file", content)
        headers = {"Content-Type": kind, "Content-Length": str(len(body))}
        path, data = f"/files/{directory}/upload", _slowly(body)
        await connection.send("slow upload", "POST", path, data=data, headers=headers)
        await connection.download("download", f"{directory}/file", content)

    async def _download_slowly(self, connection: Connection) -> None:
        path = "data/large/file"
        await connection.download("slow download", path, self._large, read=_read_slowly)

    @asynccontextmanager
    async def _connected(self, url: str, headers: dict[str, str]) -> AsyncIterator[Connection]:
        async with aiohttp.ClientSession(
            url,
            headers=headers,
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=1.0),
            timeout=aiohttp.ClientTimeout(total=60),
        ) as session:
            session._retry_connection = False
            yield Connection(session, self)


async def _slowly(body: bytes) -> AsyncIterator[bytes]:
    step = len(body) // PIECES + 1
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(PAUSE)


async def _read_slowly(response: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    for _ in range(PIECES):
        found += await response.content.read(LARGE // PIECES)
        await asyncio.sleep(PAUSE)
    return bytes(found + await response.read())
