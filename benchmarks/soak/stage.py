"""The whole cloud on this machine: services, stand-ins, users and workers."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import orjson

from benchmarks.environment import service_settings
from benchmarks.soak.client import Client
from benchmarks.soak.ledger import Follower, Ledger
from benchmarks.soak.users import USERS, User
from benchmarks.soak.workers import Worker
from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.database import RawDatabase
from devtools.front import Front
from devtools.postgres import Server
from devtools.restartable import Restartable
from devtools.shifted_clock import shifted_clock
from devtools.user_pool import INTERNAL_KEY, Issuer
from devtools.waiting import meanwhile

DISPATCHERS: Final = 3
WORKERS: Final = 16

_TIMEOUT: Final = 1.5
LEASE: Final = _TIMEOUT + 5.0
"""Seconds after which the claims of a dispatcher expire, with faults."""

_CLOCK_OFF: Final = 3_600
_SILENCE: Final = 10.0
_CALL_TIMEOUT: Final = 15.0
_START: Final = 120.0
"""Seconds for ten processes at once, on a machine that may be busy: no part of what is measured."""

_MAIL: Final = {
    "EMAIL_SENDER_SERVICE": "mailjet",
    "EMAIL_SENDER_ADDRESS": "cloud@example.com",
    "EMAIL_SENDER_API_KEY": "mailjet-key",
    "EMAIL_SENDER_SECRET_KEY": "mailjet-secret",
}
_SHORT_TIMEOUTS: Final = {
    "HANDOVER_TIMEOUT": str(_TIMEOUT),
    "HANDOVER_GRACE": "2",
    "EMAIL_TIMEOUT": "1.5",
    "EMAIL_LOOKUP_WAIT": "1",
}


@dataclass(frozen=True)
class Profile:
    """The load of a run: many jobs with short time-outs, or a steady one as in production.

    `rate` is the actions of all users per second, `submissions` their share of submissions in
    relation to 100 others; jobs are deleted after `lifetime` seconds, settled hand-overs after
    `retention`. Workers keep jobs alive every `keep_alive` seconds.
    """

    faults: bool
    seed: int
    rate: float
    submissions: float
    lifetime: float
    retention: float
    keep_alive: float
    settings: Mapping[str, str]


def with_faults(seed: int, rate: float) -> Profile:
    """Many jobs, which nobody deletes, and short time-outs, since such a run is short."""
    return Profile(True, seed, rate, 40.0, inf, inf, 0.05, _SHORT_TIMEOUTS)


def steady(seed: int, rate: float) -> Profile:
    """What comes also goes, within minutes, so that everything has to stay flat."""
    return Profile(False, seed, rate, 4.0, 240.0, 120.0, 1.5, {"HANDOVER_RETENTION": "120"})


class Stage:
    """What runs, and the ledger; `server` is None on SQLite. An asynchronous context."""

    def __init__(
        self, profile: Profile, database: RawDatabase, server: Server | None, folder: Path
    ) -> None:
        self.profile = profile
        self.database = database
        self.server = server
        self.folder = folder
        self.ledger = Ledger()
        self._pool = Issuer()
        self._stack = AsyncExitStack()
        self._front_port = free_port()
        self._url = f"http://{LOOPBACK}:{self._front_port}"

    async def __aenter__(self) -> Self:
        async with self._stack as stack:
            self._start_standins()
            ports = self._start_services()
            started = (*self.services, self.peer, self.mailjet, self._keys)
            ready = (item.process.wait_until_ready(within=_START) for item in started)
            await asyncio.gather(*ready)
            await stack.enter_async_context(Front(ports).served(self._front_port))
            timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT)
            connector = aiohttp.TCPConnector(limit=0)
            self.session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=timeout, connector=connector)
            )
            await stack.enter_async_context(self._background())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def services(self) -> list[Restartable]:
        return [*self.gateways, *self.dispatchers, self.notifier]

    def user(self, name: str) -> User:
        """A user of the pool with a user's share of the rate."""
        profile, headers = self.profile, self._pool.headers(name)
        client = Client(self.session, self._url, headers, self.ledger, persistent=profile.faults)
        chance = random.Random(f"{profile.seed}-{name}")
        rate, lifetime = profile.rate / USERS, profile.lifetime
        return User(name, client, self.ledger, chance, rate, profile.submissions, lifetime)

    async def set_rules(self, standin: Restartable, *rules: Mapping[str, Any]) -> None:
        """Replace the fault rules of a stand-in."""
        async with self.session.put(f"{standin.url}/_faults", json={"rules": rules}) as response:
            response.raise_for_status()

    def _start(
        self, name: str, module: str, settings: Mapping[str, Any], **more: Any
    ) -> Restartable:
        started = Restartable(name, module, settings, self.folder, **more)
        self._stack.callback(started.kill)
        return started

    def _start_standin(self, module: str, **options: Any) -> Restartable:
        port = free_port()
        options = {"port": port, **options}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return self._start(module, module, {}, admin_port=port, arguments=words, ready="/_faults")

    def _start_standins(self) -> None:
        folder, port = self.folder, free_port()
        keys = folder / "jwks.json"
        keys.write_bytes(orjson.dumps({"keys": [self._pool.jwk]}))
        words = [str(port), str(keys)]
        self._keys = self._start(
            "keys", "benchmarks.standins", {}, admin_port=port, arguments=words
        )
        self.mailjet = self._start_standin("deploy.sandbox.mailjet", file=folder / "mails")
        self.peer = self._start_standin(
            "deploy.sandbox.peer", key=INTERNAL_KEY, gateway=self._url, silence=_SILENCE,
            root=folder / "user_data", journal=folder / "journal",
        )  # fmt: skip

    def _start_services(self) -> list[int]:
        """Returns the gateways' ports."""
        settings = service_settings(
            self.folder, self.database, peer=self.peer.url, keys=self._keys.url
        )
        settings |= {**_MAIL, **self.profile.settings, "EMAIL_SENDER_API_URL": self.mailjet.url}
        ports = [free_port() for _ in range(1 if self.database.is_sqlite else 2)]
        self.gateways = [
            self._start(f"gateway-{index}", "gateway", {**settings, "HOST": LOOPBACK, "PORT": port})
            for index, port in enumerate(ports)
        ]
        clocks: list[dict[str, str]] = [{} for _ in range(DISPATCHERS)]
        if self.profile.faults:
            clocks[0] = {
                "PYTHONPATH": str(shifted_clock(self.folder, _CLOCK_OFF)),
                "PYTHONWARNINGS": "ignore",  # extensions notice that the clock is not Python's own
            }
        self.dispatchers = [
            self._start(f"dispatcher-{index}", "dispatcher", settings | clock)
            for index, clock in enumerate(clocks)
        ]
        self.notifier = self._start("notifier", "notifier", settings)
        return ports

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        """Workers work, and files are read."""
        self.workers = [
            Worker(
                f"worker-{index}", self.session, self.peer.url, self.ledger,
                random.Random(f"{self.profile.seed}-{index}"), self.profile.keep_alive,
            )
            for index in range(WORKERS)
        ]  # fmt: skip
        self.followers = [
            Follower(self.folder / "journal", self.ledger.read_journal),
            Follower(self.folder / "mails", self.ledger.read_mail),
        ]
        work = [item.work() for item in self.workers]
        work += [item.follow() for item in self.followers]
        async with meanwhile(*work):
            yield
