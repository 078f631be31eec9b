"""Injects faults at random, one after another, and measures the time to recover."""

import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from benchmarks.soak.faults import FAULTS, Fault
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.stage import Stage

RECOVERY_TIMEOUT: Final = 30.0
"""Seconds after which a recovery counts as too late and the next fault follows."""

_LONGEST_REST: Final = 1.0
_SECOND_FAULT: Final = 0.25


@dataclass
class Chaos:
    """`recoveries` are the seconds from a repair until everything that it affects works."""

    stage: Stage
    chance: random.Random
    injected: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def run(self, seconds: float) -> None:
        """Inject faults for `seconds`, or up to twice as long until each kind has come once."""
        ends = time.monotonic() + seconds
        latest = ends + seconds
        possible = [item for item in FAULTS if self.stage.server or not item.postgresql_only]
        queue: list[Fault] = []
        while time.monotonic() < ends or (
            len(self.recoveries) < len(possible) and time.monotonic() < latest
        ):
            if not queue:
                queue = self.chance.sample(possible, len(possible))
            fault = queue.pop()
            print(f"  {fault.name}", file=sys.stderr, flush=True)
            await self._inject(fault)
            await asyncio.sleep(self.chance.random() * _LONGEST_REST)

    async def _inject(self, fault: Fault) -> None:
        self.injected[fault.name] += 1
        duration = self.chance.uniform(*fault.seconds)
        async with fault.context(self.stage, self.chance):
            await asyncio.sleep(duration / 2)
            if self.chance.random() < _SECOND_FAULT:
                self._kill_dispatcher()
            await asyncio.sleep(duration / 2)
            recovered = asyncio.ensure_future(recovery(self.stage.ledger, fault.affects))
        self.recoveries[fault.name].append(await recovered)

    def _kill_dispatcher(self) -> None:
        victim = self.chance.choice(self.stage.dispatchers)
        victim.kill()
        victim.ensure_running()
        self.injected["a dispatcher killed during another fault"] += 1


async def recovery(ledger: Ledger, affected: Sequence[str]) -> float:
    """Seconds from now until all steps have succeeded; infinite after the time-out."""
    since = time.monotonic()
    while any(ledger.latest.get(step, 0.0) <= since for step in affected):
        if time.monotonic() - since > RECOVERY_TIMEOUT:
            return inf
        await asyncio.sleep(0.02)
    return time.monotonic() - since
