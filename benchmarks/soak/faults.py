"""Faults, each a context at whose end the damage is repaired."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.engine import make_url

from benchmarks.soak.ledger import HANDED_OVER, MAILED, REPORTED, SUBMITTED
from benchmarks.soak.stage import LEASE, Stage
from devtools.postgres import OwnServer
from devtools.restartable import Restartable

REFUSED: Final = "*7"
"""Names of the jobs that the peer refuses while it refuses some."""

_BURST: Final = 100
_ABANDONING: Final = 3

Context = Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """It lasts between two numbers of `seconds`, and is over once all of `affects` work again."""

    name: str
    context: Context
    seconds: tuple[float, float]
    affects: Sequence[str] = (SUBMITTED, HANDED_OVER, REPORTED)
    postgresql_only: bool = False


def _kill(choose: Callable[[Stage, random.Random], list[Restartable]]) -> Context:
    @asynccontextmanager
    async def killed(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
        victims = choose(stage, chance)
        for victim in victims:
            victim.kill()
        try:
            yield
        finally:
            for victim in victims:
                victim.ensure_running()
        for victim in victims:
            await victim.process.wait_until_ready()

    return killed


def _misbehave(choose: Callable[[Stage], Restartable], **rule: Any) -> Context:
    @asynccontextmanager
    async def misbehaving(stage: Stage, _: random.Random) -> AsyncIterator[None]:
        standin = choose(stage)
        await stage.set_rules(standin, rule)
        try:
            yield
        finally:
            await stage.set_rules(standin)

    return misbehaving


def _peer(fault: str, **more: Any) -> Context:
    return _misbehave(lambda stage: stage.peer, fault=fault, on="submit", **more)


def _mailjet(fault: str, times: int | None = None) -> Context:
    return _misbehave(lambda stage: stage.mailjet, fault=fault, on="send", times=times)


@asynccontextmanager
async def _restart_server(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    assert isinstance(stage.server, OwnServer)
    await asyncio.to_thread(stage.server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.server.start)


@asynccontextmanager
async def _terminate_connections(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    server, name = stage.server, make_url(stage.database.url).database
    assert server is not None
    terminate = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )

    async def repeat() -> None:
        while True:
            await asyncio.to_thread(server.execute, terminate)
            await asyncio.sleep(0.5)

    task = asyncio.ensure_future(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _suspend_dispatcher(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """It resumes after its claims have expired, its calls answered or not."""
    victim = chance.choice(stage.dispatchers).process
    victim.suspend()
    try:
        yield
    finally:
        victim.resume()


@asynccontextmanager
async def _burst(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    user = stage.user(f"burst-{chance.getrandbits(32)}")
    burst = asyncio.ensure_future(user.submit_burst(_BURST))
    yield
    await burst


@asynccontextmanager
async def _stall_workers(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    for worker in chance.sample(stage.workers, _ABANDONING):
        worker.to_abandon = 1
    yield


FAULTS: Final = (
    Fault("a gateway killed", _kill(lambda s, chance: [chance.choice(s.gateways)]), (0.0, 1.0)),
    Fault(
        "a dispatcher killed", _kill(lambda s, chance: [chance.choice(s.dispatchers)]), (0.0, 1.0)
    ),
    Fault("all dispatchers killed", _kill(lambda s, _: s.dispatchers), (0.0, 0.5)),
    Fault("the notifier killed", _kill(lambda s, _: [s.notifier]), (0.0, 1.0), (MAILED,)),
    Fault("a dispatcher suspended", _suspend_dispatcher, (LEASE + 0.5, LEASE + 2.0)),
    Fault("the peer killed", _kill(lambda s, _: [s.peer]), (0.0, 2.0)),
    Fault("the peer accepted, the response was lost", _peer("drop_after", times=5), (1.0, 2.0)),
    Fault("the peer hangs", _peer("hang"), (1.0, 3.0)),
    Fault("the peer accepted, and hangs", _peer("hang", commit=True), (1.0, 3.0)),
    Fault("the peer sends a byte a second", _peer("drip", seconds=1.0), (1.0, 2.0)),
    Fault("the peer accepted, and sends garbage", _peer("garbage", commit=True), (0.5, 1.5)),
    Fault("the peer sends a page", _peer("html"), (0.5, 2.0)),
    Fault("the peer refuses some", _peer("status", status=422, names=REFUSED), (2.0, 4.0)),
    Fault("the peer is slow", _peer("delay", seconds=0.4), (1.0, 3.0)),
    Fault("the peer responds 503", _peer("status"), (1.0, 3.0)),
    Fault("the peer responds 502", _peer("status", status=502), (0.5, 2.0)),
    Fault("the peer refuses the key", _peer("status", status=401), (1.0, 3.0)),
    Fault("PostgreSQL restarted", _restart_server, (0.0, 2.0), postgresql_only=True),
    Fault("connections terminated", _terminate_connections, (1.0, 2.5), postgresql_only=True),
    Fault("a burst of submissions", _burst, (0.0, 0.5)),
    Fault("stalled workers", _stall_workers, (0.0, 0.5)),
    Fault("Mailjet sent, lost the response", _mailjet("drop_after", 3), (1.0, 2.0), (MAILED,)),
    Fault("Mailjet responds 503", _mailjet("status"), (1.0, 2.0), (MAILED,)),
)
