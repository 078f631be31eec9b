"""Everything that runs during a soak."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.database import TestDatabase, driver_settings
from benchmarks.identity import CLIENT, INTERNAL_KEY, POOL, REGION, Identity, make_identity
from benchmarks.processes import REPOSITORY
from benchmarks.soak.ledger import Follower, Ledger
from benchmarks.soak.services import Service
from benchmarks.soak.users import User
from benchmarks.soak.workers import Worker
from common.database.engine import Database
from common.database.schema import migrate
from deploy.sandbox.ports import LOOPBACK, free_port
from devtools.front import Front
from devtools.postgres import OwnServer
from devtools.shifted_clock import shifted_clock

DISPATCHERS: Final = 3
WORKERS: Final = 16

_TIMEOUT: Final = 1.5
LEASE: Final = _TIMEOUT + 5.0
"""Seconds for which a dispatcher may be busy with what it has claimed."""

_CLOCK_OFF: Final = 3_600
_SILENCE: Final = 10.0
_CALL_TIMEOUT: Final = 15.0


@dataclass(kw_only=True)
class Stage:
    """The processes, what is said to them, and what was seen. `server` only on PostgreSQL."""

    ledger: Ledger
    database: TestDatabase
    server: OwnServer | None
    session: aiohttp.ClientSession
    gateways: list[Service]
    dispatchers: list[Service]
    notifier: Service
    standins: list[Service]
    peer: Service
    peer_url: str
    mailjet_url: str
    url: str
    identity: Identity
    user: User
    workers: list[Worker]
    followers: list[Follower]
    folder: Path

    @property
    def services(self) -> list[Service]:
        return [*self.gateways, *self.dispatchers, self.notifier]

    async def switch(self, url: str, *rules: Mapping[str, Any]) -> None:
        """Put the stand-in's fault rules in force instead of those before."""
        async with self.session.put(f"{url}/_faults", json={"rules": rules}) as response:
            response.raise_for_status()


@asynccontextmanager
async def set_up(
    database: TestDatabase,
    server: OwnServer | None,
    folder: Path,
    seed: int,
    *,
    patience: Mapping[str, str] | None = None,
    worker_type: type[Worker] = Worker,
    clock_off: int = _CLOCK_OFF,
) -> AsyncIterator[Stage]:
    """Start everything; all of it is gone afterwards, whatever happens.

    `patience` goes before the settings of a short soak; one dispatcher thinks that it is
    `clock_off` seconds later.
    """
    await _migrate(database.url)
    gateway_count = 1 if database.is_sqlite else 2
    gateway_ports = [free_port() for _ in range(gateway_count)]
    front, keys, peer, mailjet = (free_port() for _ in range(4))
    identity = make_identity()
    (folder / "jwks.json").write_bytes(orjson.dumps(identity.key_set))
    settings = _settings(folder, database.url, keys=keys, peer=peer, mailjet=mailjet)
    settings |= patience or {}
    standins = _standins(folder, front=front, keys=keys, peer=peer, mailjet=mailjet)
    gateways = [
        _service("gateway", index, settings, folder, {"HOST": LOOPBACK, "PORT": str(port)})
        for index, port in enumerate(gateway_ports)
    ]
    clock = _clock(folder, clock_off) if clock_off else None
    dispatchers = [
        _service("dispatcher", index, settings, folder, clock if index == 0 else None)
        for index in range(DISPATCHERS)
    ]
    notifier = _service("notifier", 0, settings, folder)
    async with AsyncExitStack() as stack:
        everything = [*standins.values(), *gateways, *dispatchers, notifier]
        for service in everything:
            service.start()
            stack.callback(service.kill)
        await asyncio.gather(*(service.wait_until_ready() for service in everything))
        await stack.enter_async_context(Front(gateway_ports).served(front))
        timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        )
        ledger = Ledger()
        peer_url = f"http://{LOOPBACK}:{peer}"
        stage = Stage(
            ledger=ledger,
            database=database,
            server=server,
            session=session,
            gateways=gateways,
            dispatchers=dispatchers,
            notifier=notifier,
            standins=list(standins.values()),
            peer=standins["peer"],
            peer_url=peer_url,
            mailjet_url=f"http://{LOOPBACK}:{mailjet}",
            url=f"http://{LOOPBACK}:{front}",
            identity=identity,
            user=_user(session, front, identity, ledger, seed),
            workers=[
                worker_type(f"worker-{i}", session, peer_url, ledger, seed + i)
                for i in range(WORKERS)
            ],
            followers=[
                Follower(folder / "journal", ledger.read_journal),
                Follower(folder / "mails", ledger.read_mail),
            ],
            folder=folder,
        )
        async with _in_background(stage):
            yield stage


def _clock(folder: Path, off: int) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{shifted_clock(folder, off)}{os.pathsep}{REPOSITORY}",
        "PYTHONWARNINGS": "ignore",  # extensions notice that the clock is not Python's own
    }


def _user(
    session: aiohttp.ClientSession, port: int, identity: Identity, ledger: Ledger, seed: int
) -> User:
    return User(session, f"http://{LOOPBACK}:{port}", identity.token, ledger, seed)


@asynccontextmanager
async def _in_background(stage: Stage) -> AsyncIterator[None]:
    """Workers work and files are read meanwhile."""
    work = [worker.work() for worker in stage.workers]
    tasks = [
        asyncio.ensure_future(item) for item in (*work, *(f.follow() for f in stage.followers))
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _service(
    kind: str,
    index: int,
    settings: Mapping[str, str],
    folder: Path,
    more: Mapping[str, str] | None = None,
) -> Service:
    port = free_port()
    own = {**settings, "ADMIN_PORT": str(port), **(more or {})}
    ready = f"http://{LOOPBACK}:{port}/readyz"
    return Service(f"{kind}-{index}", kind, settings=own, ready=ready, folder=folder)


def _standins(
    folder: Path, *, front: int, keys: int, peer: int, mailjet: int
) -> dict[str, Service]:
    commands = {
        "keys": (
            ("benchmarks.standins", "--port", str(keys), "--keys", str(folder / "jwks.json")),
            f"http://{LOOPBACK}:{keys}/jwks.json",
        ),
        "peer": (
            (
                *("deploy.sandbox.peer", "--port", str(peer), "--key", INTERNAL_KEY),
                *("--gateway", f"http://{LOOPBACK}:{front}", "--root", str(folder / "user_data")),
                *("--journal", str(folder / "journal"), "--silence", str(_SILENCE)),
            ),
            f"http://{LOOPBACK}:{peer}/_faults",
        ),
        "mailjet": (
            ("deploy.sandbox.mailjet", "--port", str(mailjet), "--file", str(folder / "mails")),
            f"http://{LOOPBACK}:{mailjet}/_faults",
        ),
    }
    return {
        name: Service(name, *command, settings={}, ready=ready, folder=folder)
        for name, (command, ready) in commands.items()
    }


def _settings(
    folder: Path, database_url: str, *, keys: int, peer: int, mailjet: int
) -> dict[str, str]:
    """The services' whole environment, as impatient as a short soak needs them."""
    return {
        "PROD": "true",
        "USER_DATA_ROOT_PATH": str(folder / "user_data"),
        "DATABASE_URL": database_url,
        "WORKERFACING_API_URL": f"http://{LOOPBACK}:{peer}",
        "INTERNAL_API_KEY_SECRET": INTERNAL_KEY,
        "COGNITO_CLIENT_ID": CLIENT,
        "COGNITO_USER_POOL_ID": POOL,
        "COGNITO_REGION": REGION,
        "COGNITO_JWKS_URL": f"http://{LOOPBACK}:{keys}/jwks.json",
        "HANDOVER_TIMEOUT": str(_TIMEOUT),
        "HANDOVER_GRACE": "2",
        "EMAIL_SENDER_SERVICE": "mailjet",
        "EMAIL_SENDER_API_URL": f"http://{LOOPBACK}:{mailjet}",
        "EMAIL_SENDER_ADDRESS": "cloud@example.com",
        "EMAIL_SENDER_API_KEY": "mailjet-key",
        "EMAIL_SENDER_SECRET_KEY": "mailjet-secret",
        "EMAIL_TIMEOUT": "1.5",
        "EMAIL_LOOKUP_WAIT": "1",
        "LOG_FORMAT": "json",
    }


async def _migrate(url: str) -> None:
    database = Database(driver_settings(url))
    try:
        await migrate(database)
    finally:
        await database.close()
