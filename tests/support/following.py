"""Users who submit jobs and follow them, by streams and by requests that wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from operator import itemgetter
from typing import Any

import aiohttp

from devtools.event_source import EventSource
from devtools.waiting import eventually, meanwhile
from tests.support.gateway import job_body

RECONNECT = 0.2
WAIT = 20


class User:
    """One user, with some streams that are open all the time."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, *, streams: int
    ) -> None:
        self.jobs: list[int] = []
        self._session = session
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self.sources = [
            EventSource(session, url, self._headers, pause=RECONNECT) for _ in range(streams)
        ]

    async def ask(self, method: str, path: str, **parts: Any) -> tuple[int | str, Any]:
        """Status and content; the error instead of the status where the connection broke."""
        try:
            async with self._session.request(
                method, self._url + path, headers=self._headers, **parts
            ) as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return repr(error), {}

    async def recorded(self) -> list[dict[str, Any]]:
        """The events of all own jobs, as they are listed."""
        lists = [await self.ask("GET", f"/jobs/{job}/events") for job in self.jobs]
        return sorted((event for _, events in lists for event in events), key=itemgetter("id"))


class Following:
    """Users of whom each has `streams`; `polls` of their jobs at a time are waited for."""

    def __init__(self, url: str, tokens: list[str], *, streams: int, polls: int) -> None:
        self.going = True
        self.outcomes: Counter[tuple[str, int | str]] = Counter()
        self.users: list[User] = []
        self._url = url
        self._tokens = tokens
        self._streams = streams
        self._polls = polls

    @property
    def jobs(self) -> list[int]:
        return [job for user in self.users for job in user.jobs]

    @property
    def sources(self) -> list[EventSource]:
        return [source for user in self.users for source in user.sources]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends; then the jobs that were submitted end, and all is checked."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            self.users = [
                User(session, self._url, token, streams=self._streams) for token in self._tokens
            ]
            await stack.enter_async_context(meanwhile(*(source.run() for source in self.sources)))
            for source in self.sources:
                await asyncio.wait_for(source.is_open.wait(), 30)
            lives = asyncio.gather(
                *(self._live(self.users[turn % len(self.users)]) for turn in range(self._polls))
            )
            stack.callback(lives.cancel)
            yield
            self.going = False
            await asyncio.wait_for(lives, 120)
            await self._check()

    async def _live(self, user: User) -> None:
        """Submit jobs one after the other, and wait for the end of each."""
        while self.going:
            body = job_body(attributes={"files_down": {}})
            status, job = await user.ask("POST", "/jobs", json=body)
            self.outcomes["submission", status] += 1
            if status != 201:
                continue
            number = job["id"]
            user.jobs.append(number)
            while job.get("status") != "finished":
                status, job = await user.ask("GET", f"/jobs/{number}?wait={WAIT}")
                self.outcomes["poll", status] += 1

    async def _check(self) -> None:
        """Every stream gets every event once, in order, and every request succeeded."""
        assert set(self.outcomes) == {("poll", 200), ("submission", 201)}
        for user in self.users:
            events = await user.recorded()
            last = events[-1]["id"]
            await eventually(lambda: all(s.last == last for s in user.sources), within=30)  # noqa: B023
            assert all(source.faults == [] for source in user.sources)
            assert all(source.events == events for source in user.sources)
