"""What is done to the cloud. Each fault is a context, at whose end what it broke is mended."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.engine import make_url

from benchmarks.soak.ledger import HANDED_OVER, MAILED, REPORTED, SUBMITTED
from benchmarks.soak.services import Service
from benchmarks.soak.stage import LEASE, Stage

REFUSED: Final = "*7"
"""Names of the jobs that the peer refuses while it refuses some."""

_BURST: Final = 100

Context = Callable[[Stage, random.Random], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`seconds` is how long it lasts at least and at most; it is over for `heals` once each of
    these has succeeded again."""

    name: str
    context: Context
    seconds: tuple[float, float]
    heals: Sequence[str] = (SUBMITTED, HANDED_OVER, REPORTED)
    postgresql_only: bool = False


def _killing(choose: Callable[[Stage, random.Random], list[Service]]) -> Context:
    @asynccontextmanager
    async def killed(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
        victims = choose(stage, chance)
        for victim in victims:
            victim.kill()
        try:
            yield
        finally:
            for victim in victims:
                victim.start()
        for victim in victims:
            await victim.wait_until_ready()

    return killed


def _rule(place: str, make: Callable[[random.Random], dict[str, Any]]) -> Context:
    @asynccontextmanager
    async def ruled(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
        url = stage.peer_url if place == "peer" else stage.mailjet_url
        await stage.switch(url, make(chance))
        try:
            yield
        finally:
            await stage.switch(url)

    return ruled


@asynccontextmanager
async def _restarted(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    assert stage.server is not None
    await asyncio.to_thread(stage.server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(stage.server.start)


@asynccontextmanager
async def _cut_off(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    server, name = stage.server, make_url(stage.database.url).database
    assert server is not None
    cut = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND pid <> pg_backend_pid()"
    )

    async def cut_again_and_again() -> None:
        while True:
            await asyncio.to_thread(server.execute, cut)
            await asyncio.sleep(0.5)

    task = asyncio.ensure_future(cut_again_and_again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def _suspended(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    """It wakes up after its leases have run out, and its calls were answered or not."""
    victim = chance.choice(stage.dispatchers)
    victim.suspend()
    try:
        yield
    finally:
        victim.resume()


@asynccontextmanager
async def _burst(stage: Stage, _: random.Random) -> AsyncIterator[None]:
    stage.user.submit_at_once(_BURST)
    yield


@asynccontextmanager
async def _silent(stage: Stage, chance: random.Random) -> AsyncIterator[None]:
    for worker in chance.sample(stage.workers, 3):
        worker.silent_next = 1
    yield


def _submission(fault: str, **more: Any) -> Context:
    return _rule("peer", lambda _: {"fault": fault, "on": "submit", **more})


FAULTS: Final = (
    Fault(
        name="a gateway killed",
        context=_killing(lambda stage, chance: [chance.choice(stage.gateways)]),
        seconds=(0.0, 1.0),
    ),
    Fault(
        name="a dispatcher killed",
        context=_killing(lambda stage, chance: [chance.choice(stage.dispatchers)]),
        seconds=(0.0, 1.0),
    ),
    Fault(
        name="all dispatchers killed",
        context=_killing(lambda stage, _: stage.dispatchers),
        seconds=(0.0, 0.5),
    ),
    Fault(
        name="the notifier killed",
        context=_killing(lambda stage, _: [stage.notifier]),
        seconds=(0.0, 1.0),
        heals=(MAILED,),
    ),
    Fault(
        name="a dispatcher suspended past its leases",
        context=_suspended,
        seconds=(LEASE + 0.5, LEASE + 2.0),
    ),
    Fault(
        name="the peer killed",
        context=_killing(lambda stage, _: [stage.peer]),
        seconds=(0.0, 2.0),
    ),
    Fault(
        name="the peer took it, its answer was lost",
        context=_rule(
            "peer",
            lambda chance: {"fault": "drop_after", "on": "submit", "times": chance.randrange(1, 9)},
        ),
        seconds=(1.0, 2.0),
    ),
    Fault(
        name="the peer hangs",
        context=_rule(
            "peer",
            lambda chance: {"fault": "hang", "on": "submit", "commit": chance.random() < 0.5},
        ),
        seconds=(1.0, 3.0),
    ),
    Fault(
        name="the peer answers a byte a second",
        context=_submission("drip", seconds=1.0),
        seconds=(1.0, 2.0),
    ),
    Fault(
        name="the peer took it, and answers garbage",
        context=_submission("garbage", commit=True),
        seconds=(0.5, 1.5),
    ),
    Fault(
        name="the peer answers with a page",
        context=_submission("html"),
        seconds=(0.5, 2.0),
    ),
    Fault(
        name="the peer refuses some jobs for good",
        context=_submission("status", status=422, names=REFUSED),
        seconds=(2.0, 4.0),
    ),
    Fault(name="the peer is slow", context=_submission("delay", seconds=0.4), seconds=(1.0, 3.0)),
    Fault(name="the peer answers 503", context=_submission("status"), seconds=(1.0, 3.0)),
    Fault(
        name="the peer answers 502",
        context=_submission("status", status=502),
        seconds=(0.5, 2.0),
    ),
    Fault(
        name="the peer refuses the key",
        context=_submission("status", status=401),
        seconds=(1.0, 3.0),
    ),
    Fault(
        name="PostgreSQL restarted",
        context=_restarted,
        seconds=(0.0, 2.0),
        postgresql_only=True,
    ),
    Fault(
        name="connections terminated",
        context=_cut_off,
        seconds=(1.0, 2.5),
        postgresql_only=True,
    ),
    Fault(name="a burst of submissions", context=_burst, seconds=(0.0, 0.5)),
    Fault(name="workers fell silent", context=_silent, seconds=(0.0, 0.5)),
    Fault(
        name="Mailjet sent it, its answer was lost",
        context=_rule("mailjet", lambda _: {"fault": "drop_after", "on": "send", "times": 3}),
        seconds=(1.0, 2.0),
        heals=(MAILED,),
    ),
    Fault(
        name="Mailjet answers 503",
        context=_rule("mailjet", lambda _: {"fault": "status", "on": "send"}),
        seconds=(1.0, 2.0),
        heals=(MAILED,),
    ),
)
