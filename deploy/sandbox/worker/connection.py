"""A worker's client of the worker-facing API, which retries for minutes."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

T = TypeVar("T")

_LONGEST_PAUSE: Final = 5.0


class JobGoneError(Exception):
    """The peer returned 404: the job was deleted or assigned to another worker. Stop it."""


class TransferError(Exception):
    """A file could not be transferred; the message is a sentence for the user."""


class UnreachableError(Exception):
    """The peer was unreachable for longer than the worker's `patience`."""


class PeerConnection:
    """Calls to the peer at `url` as `worker`, each retried for `patience` seconds."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, worker: str, *, patience: float = 600.0
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._worker = worker
        self._patience = patience

    async def pull(self, *, wait: float, environment: str | None = None) -> dict[str, Any] | None:
        """The next job; waits up to `wait` seconds for one. Raises aiohttp's errors."""
        query = {"wait": str(wait)} | ({"environment": environment} if environment else {})
        url = f"{self._url}/workers/{self._worker}/pull"
        async with self._session.post(url, params=query) as response:
            response.raise_for_status()
            return None if response.status == 204 else dict(await response.json())

    async def report(self, entry: int, status: str, details: str | None = None) -> None:
        """Report the job's status. Raises `JobGoneError` if the job has to stop."""

        async def put() -> None:
            url = f"{self._url}/entries/{entry}/status"
            body = {"status": status, "runtime_details": details}
            async with self._session.put(url, params=self._who(), json=body) as response:
                await self._check(response)

        await self._persistently(put)

    async def download(self, entry: int, path: str, target: Path) -> None:
        """Download the input with this path in the mount. Raises `TransferError`."""

        async def get() -> None:
            url = f"{self._url}/entries/{entry}/input"
            async with self._session.get(url, params=self._who(path)) as response:
                await self._check(response, of_file=True)
                with target.open("wb") as file:
                    async for chunk in response.content.iter_chunked(1 << 18):
                        file.write(chunk)

        await self._persistently(get)

    async def upload(self, entry: int, kind: str, path: str, source: Path) -> None:
        """Store a result file as `path` below the upload path of `kind`."""

        async def put() -> None:
            url = f"{self._url}/entries/{entry}/results/{kind}"
            with source.open("rb") as file:
                async with self._session.put(url, params=self._who(path), data=file) as response:
                    await self._check(response, of_file=True)

        await self._persistently(put)

    def _who(self, path: str | None = None) -> dict[str, str]:
        return {"worker": self._worker} | ({} if path is None else {"path": path})

    @staticmethod
    async def _check(response: aiohttp.ClientResponse, *, of_file: bool = False) -> None:
        if response.status < 400:
            return
        body = await response.json(content_type=None) if response.status < 500 else {}
        detail = str(body.get("detail", "")) if isinstance(body, dict) else ""
        if response.status == 404 and detail == "Not Found":
            raise JobGoneError
        if of_file and response.status < 500:
            raise TransferError(detail or f"the peer returned {response.status}")
        response.raise_for_status()

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        end = time.monotonic() + self._patience
        pause = 0.25
        while True:
            try:
                return await call()
            except aiohttp.ClientResponseError as error:
                problem: Exception = error
                if error.status < 500:
                    raise UnreachableError(f"the peer returned {error.status}") from error
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = error
            if time.monotonic() > end:
                raise UnreachableError(
                    f"the peer was unreachable for too long: {problem}"
                ) from problem
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)
