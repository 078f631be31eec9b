"""Users, each of whom does one thing after the other."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.soak.client import Client
from benchmarks.soak.files import Files
from benchmarks.soak.jobs import Jobs
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.refusals import Refusals
from benchmarks.soak.retries import Retries

Action = Callable[[], Awaitable[None]]

USERS: Final = 12


class User:
    """Acts `rate` times a second; `submissions` is the weight of submissions among the actions."""

    def __init__(
        self, name: str, client: Client, ledger: Ledger, chance: random.Random,
        rate: float, submissions: float, lifetime: float,
    ) -> None:  # fmt: skip
        self._chance = chance
        self._rate = rate
        self._client = client
        self.stream = client.stream()
        self._ledger, self._name = ledger, name
        self.jobs = Jobs(name, client, ledger, chance, lifetime)
        self.retries = Retries(client, ledger, chance, self.jobs)
        self.files = Files(client, chance)
        self.actions = self._weighted_actions(submissions)

    async def act_until(self, over: asyncio.Event) -> None:
        """Act until the event, once the stream is open; the last action ends after it."""
        self._ledger.streams[self._name] = self.stream
        await self.stream.is_open.wait()
        await self.files.add_inputs()
        while not over.is_set():
            await asyncio.sleep(self._chance.expovariate(self._rate))
            (act,) = self._chance.choices([*self.actions], weights=[*self.actions.values()])
            await act()
            await self.jobs.delete_due()

    async def submit_burst(self, count: int) -> None:
        """Submit jobs all at once."""
        await self.files.add_inputs()
        await asyncio.gather(*(self.jobs.submit() for _ in range(count)))

    async def read_meta(self) -> None:
        await self._client.send("welcome", "GET", "/")
        await self._client.send("user", "GET", "/user")
        await self._client.send("access_info", "GET", "/access_info", headers={})
        await self._client.send("applications", "GET", "/jobs/applications")

        await self._client.send("docs", "GET", "/docs", headers={})
        await self._client.send("openapi.json", "GET", "/openapi.json", headers={})

    def _weighted_actions(self, submissions: float) -> dict[Action, float]:
        jobs, retries, files = self.jobs, self.retries, self.files
        return {
            jobs.submit: submissions, jobs.cancel: submissions / 10, jobs.observe: 20,
            retries.submit: submissions / 10, retries.repeat: submissions / 10,
            jobs.list_first: 7, jobs.list_page: 3,
            files.upload: 10, files.upload_by_link: 2, files.upload_large: 0.6,
            files.abort_upload: 1.2, files.abort_download: 1.2,
            files.download: 9, files.download_range: 3, files.download_by_link: 2,
            files.download_large: 0.6, files.zip: 2, files.list_folder: 7, files.list_all: 2,
            files.rename: 4, files.delete: 5, files.delete_folder: 1, files.make_folder: 1,
            self.read_meta: 4,
            Refusals(self._client, jobs, self._chance).send_some: 10,
        }  # fmt: skip
