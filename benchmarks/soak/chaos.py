"""Injects faults one after the other, at random, and sees how long the cloud takes to recover."""

import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.soak.faults import FAULTS, Fault
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.stage import Stage

LONGEST_RECOVERY: Final = 30.0
"""Seconds after which the next fault comes, recovered or not."""

_LONGEST_REST: Final = 1.0
_MEANWHILE: Final = 0.25


@dataclass
class Chaos:
    """`recoveries` are the seconds from the moment at which a fault is mended until all that it may
    break has succeeded again."""

    stage: Stage
    chance: random.Random
    injected: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def run_for(self, seconds: float) -> None:
        """Start faults for so long; every kind comes once before any comes again.

        If need be for twice as long, so that each has come.
        """
        ends = time.monotonic() + seconds
        latest = ends + seconds
        possible = [item for item in FAULTS if self.stage.server or not item.postgresql_only]
        waiting: list[Fault] = []
        while time.monotonic() < ends or (
            len(self.recoveries) < len(possible) and time.monotonic() < latest
        ):
            if not waiting:
                waiting = self.chance.sample(possible, len(possible))
            fault = waiting.pop()
            print(f"  {fault.name}", file=sys.stderr, flush=True)
            await self._inject(fault)
            await asyncio.sleep(self.chance.random() * _LONGEST_REST)

    async def _inject(self, fault: Fault) -> None:
        self.injected[fault.name] += 1
        lasts = self.chance.uniform(*fault.seconds)
        async with fault.context(self.stage, self.chance):
            await asyncio.sleep(lasts / 2)
            if self.chance.random() < _MEANWHILE:
                self._kill_meanwhile()
            await asyncio.sleep(lasts / 2)
            healing = asyncio.ensure_future(recovery(self.stage.ledger, fault.heals))
        self.recoveries[fault.name].append(await healing)

    def _kill_meanwhile(self) -> None:
        """Kill a dispatcher in the middle of another fault."""
        victim = self.chance.choice(self.stage.dispatchers)
        victim.kill()
        victim.start()
        self.injected["a dispatcher killed meanwhile"] += 1


async def recovery(ledger: Ledger, heals: Sequence[str]) -> float:
    """Seconds from now until everything in `heals` has succeeded; infinite if that takes long."""
    since = time.monotonic()
    while any(ledger.latest.get(what, 0.0) <= since for what in heals):
        if time.monotonic() - since > LONGEST_RECOVERY:
            return float("inf")
        await asyncio.sleep(0.02)
    return time.monotonic() - since
