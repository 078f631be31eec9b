"""Users, each of whom does one thing after the other."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.soak.ledger import Ledger
from benchmarks.steady.files import Files
from benchmarks.steady.jobs import Jobs
from benchmarks.steady.requests import Client
from benchmarks.steady.troubles import Troubles

Action = Callable[[], Awaitable[None]]

USERS: Final = 8


class SteadyUser:
    """Acts `rate` times a second; `lifetime` seconds after their submission jobs are deleted.

    `actions` are all that users do, with how often each comes, of a hundred.
    """

    def __init__(
        self, name: str, client: Client, ledger: Ledger, seed: int, *, rate: float, lifetime: float
    ) -> None:
        self._chance = random.Random(f"{seed}-{name}")
        self._rate = rate
        self._client = client
        self.jobs = Jobs(name, client, ledger, self._chance, lifetime)
        self.files = Files(client, self._chance)
        troubles = Troubles(client, self.files, self.jobs, self._chance)
        self.actions = _actions(self, troubles)

    async def live(self, ends: float) -> None:
        """Until that moment of the monotonic clock, and to the end of what is done then."""
        await self.files.add_inputs()
        while time.monotonic() < ends:
            await asyncio.sleep(self._chance.expovariate(self._rate))
            (act,) = self._chance.choices([*self.actions], weights=[*self.actions.values()])
            await act()
            await self.jobs.tidy_up()

    async def look_around(self) -> None:
        await self._client.send("welcome", "GET", "/")
        await self._client.send("user", "GET", "/user")
        await self._client.send("access_info", "GET", "/access_info", headers={})
        await self._client.send("applications", "GET", "/jobs/applications")

    async def read_the_documentation(self) -> None:
        await self._client.send("docs", "GET", "/docs", headers={})
        await self._client.send("openapi.json", "GET", "/openapi.json", headers={})


def _actions(user: SteadyUser, troubles: Troubles) -> dict[Action, float]:
    jobs, files = user.jobs, user.files
    return {
        jobs.submit: 4,
        jobs.look: 20,
        jobs.list_all: 7,
        jobs.list_page: 3,
        files.upload: 10,
        files.upload_by_link: 2,
        files.upload_large: 0.6,
        files.download: 9,
        files.download_part: 3,
        files.download_by_link: 2,
        files.download_large: 0.6,
        files.zip: 2,
        files.list_folder: 7,
        files.list_everything: 2,
        files.rename: 4,
        files.delete: 5,
        files.delete_folder: 1,
        files.make_folder: 1,
        user.look_around: 4,
        user.read_the_documentation: 0.4,
        troubles.ask_without_token: 2,
        troubles.ask_with_a_wrong_token: 2,
        troubles.ask_for_what_is_not_there: 2,
        troubles.submit_nonsense: 2,
        troubles.upload_nonsense: 1,
        troubles.pretend_to_be_the_worker_facing_api: 1,
        troubles.abort_upload: 1.2,
        troubles.abort_download: 1.2,
    }
