"""A client of `GET /jobs/events` that reconnects as browsers do, and checks what it gets."""

import asyncio
import contextlib
from typing import Any, Final

import aiohttp
import orjson

from deploy.sandbox.event_stream import frames

_RETRIED: Final = (429, 502, 503)


class EventSource:
    """Collects events until cancelled; `faults` says in words what may not be.

    After a connection that ends it goes on after the last event, as `Last-Event-ID` asks for.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], *, pause: float
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.deleted: list[int] = []
        self.faults: list[str] = []
        self.connections = 0
        self.is_open = asyncio.Event()
        self._session = session
        self._url = url
        self._headers = headers
        self._pause = pause

    @property
    def last(self) -> int:
        """The id of the last event; 0 before the first one."""
        return int(self.events[-1]["id"]) if self.events else 0

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._follow()
            self.is_open.clear()
            await asyncio.sleep(self._pause)

    async def _follow(self) -> None:
        last = {"Last-Event-ID": str(self.last)} if self.connections else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=20)
        async with self._session.get(
            f"{self._url}/jobs/events", headers={**self._headers, **last}, timeout=timeout
        ) as answer:
            if answer.status in _RETRIED:
                return
            if answer.status != 200:
                self.faults.append(f"status {answer.status}")
                return
            async for frame in frames(answer):
                if "retry" in frame:
                    self.connections += 1
                    self.is_open.set()
                elif frame["event"] == "deleted":
                    self.deleted.append(orjson.loads(frame["data"])["job_id"])
                else:
                    self._take(frame)

    def _take(self, frame: dict[str, str]) -> None:
        event = orjson.loads(frame["data"])
        if frame["id"] != str(event["id"]):
            self.faults.append(f"id {frame['id']} of event {event['id']}")
        if event["id"] <= self.last:
            self.faults.append(f"event {event['id']} after {self.last}")
        self.events.append(event)
