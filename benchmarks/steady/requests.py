"""Requests by kind: how often, how fast, and what was not answered as it has to be."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson

from deploy.sandbox.ports import LOOPBACK

_OK: Final = (200,)
_MOST_TOLD: Final = 300


@dataclass
class Kind:
    """`latencies` in seconds, from the request to the answer's last byte; `faults` in words."""

    latencies: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as a client sees it; `status` is 0 where there was none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body or b"null")


class Client:
    """One user's requests, counted in `kinds`, which all users share."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, kinds: defaultdict[str, Kind]
    ) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"}
        self._session = session
        self._kinds = kinds

    async def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        expected: Collection[int] = _OK,
        headers: dict[str, str] | None = None,
        **parts: Any,
    ) -> Answer:
        """Send a request as the user, or with `headers` instead of the user's token."""
        started = time.monotonic()
        given = self.headers if headers is None else headers
        try:
            async with self._session.request(
                method, self.url + path, headers=given, **parts
            ) as response:
                body = await response.read()
                answer = Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = Answer(0, {}, repr(error).encode())
        self._kinds[kind].latencies.append(time.monotonic() - started)
        self.check(
            kind,
            answer.status in expected,
            f"{method} {path}: {answer.status} {answer.body[:_MOST_TOLD]!r}",
        )
        return answer

    def check(self, kind: str, holds: bool, otherwise: str) -> None:
        """Count a fault, unless what has to hold does."""
        if not holds:
            self._kinds[kind].faults.append(otherwise[:_MOST_TOLD])

    async def abort(self, kind: str, request: bytes, *, after: int = 0) -> None:
        """Send these bytes, read at least `after` of the answer's, and break the connection."""
        started = time.monotonic()
        port = int(self.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(request)
            await writer.drain()
            if after:
                await reader.readexactly(after)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.check(kind, False, repr(error))
        finally:
            writer.transport.abort()
        self._kinds[kind].latencies.append(time.monotonic() - started)
