"""A user's requests. Each response is compared with the expected one."""

import asyncio
import io
import random
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.soak.ledger import Ledger
from deploy.sandbox.ports import LOOPBACK
from devtools.event_source import EventSource

NO_RESPONSE: Final = 0

_TRANSIENT: Final = frozenset({NO_RESPONSE, 503})
_PAUSE: Final = (0.1, 0.5)
_SHOWN: Final = 300
_RECONNECT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Response:
    """A response; its status is `NO_RESPONSE` where the connection broke."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body or b"null")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may have another response soon."""
        busy = self.status == 409 and "Retry-After" in self.headers
        return busy or self.status in _TRANSIENT


class Client:
    """Sends requests with a user's token, and records them in the ledger.

    A `persistent` one repeats a request until it has an answer other than 503, and other than the
    409 of a request under the same key that is under way.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], ledger: Ledger,
        *, persistent: bool,
    ) -> None:  # fmt: skip
        self.url = url
        self.headers = headers
        self._session = session
        self._ledger = ledger
        self._persistent = persistent

    def stream(self) -> EventSource:
        """The user's stream of events, yet to be run."""
        return EventSource(self._session, self.url, self.headers, pause=_RECONNECT)

    async def send(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        expected: Collection[int] = (200,),
        repeated: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
        file: tuple[str, bytes] | None = None,
        **body: Any,
    ) -> Response:
        """Send a request, with `headers` instead of the token or `file` in a form.

        A status in `repeated` is right too if an earlier attempt may have had its effect.
        """
        record, attempts = self._ledger.requests[kind], 0
        given = self.headers if headers is None else headers
        while True:
            attempts += 1
            started = time.monotonic()
            data = {"data": _form(*file)} if file else body
            response = await self._send(method, self.url + path, headers=given, **data)
            if not (response.is_transient and self._persistent):
                break
            record.repeated += 1
            await asyncio.sleep(random.uniform(*_PAUSE))
        record.latencies.append(time.monotonic() - started)
        right = {*expected, *repeated} if attempts > 1 else expected
        shown = f"{method} {path}: {response.status} {response.body[:_SHOWN]!r}"
        self.check(kind, response.status in right, shown)
        return response

    async def _send(self, method: str, url: str, **parts: Any) -> Response:
        try:
            async with self._session.request(method, url, **parts) as response:
                return Response(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            return Response(NO_RESPONSE, {}, repr(error).encode())

    def check(self, kind: str, holds: bool, otherwise: str) -> None:
        """Record a wrong answer unless the condition holds."""
        if not holds:
            self._ledger.requests[kind].wrong.append(otherwise[:_SHOWN])

    async def abort(
        self, kind: str, method: str, path: str, *, body: bytes = b"", after: int = 0
    ) -> None:
        """Send half of a form, or read `after` bytes of the response, then reset the connection."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if body:
            lines.append("Content-Type: multipart/form-data; boundary=cut")
            lines.append(f"Content-Length: {2 * len(body)}")
        started = time.monotonic()
        writer = None
        try:
            port = int(self.url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
            await reader.readexactly(after)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.check(kind, self._persistent, repr(error))
        finally:
            if writer is not None:
                writer.transport.abort()
        self._ledger.requests[kind].latencies.append(time.monotonic() - started)


def _form(name: str, content: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(content), filename=name)
    return form
