"""A courier without a database."""

import asyncio
from collections.abc import Sequence


class NumberCourier:
    """Delivers numbers; deliveries wait for `go_on`, claims for `may_claim`."""

    def __init__(self, count: int, slots: int) -> None:
        self.queue = list(range(count))
        self.delivered: list[int] = []
        self.claims: list[int] = []
        self.failures: list[Exception] = []
        self.cancellations = 0
        self.go_on, self.may_claim, self.hangs = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.may_claim.set()
        self._slots = slots

    def slots(self, under_way: int) -> int:
        return self._slots - under_way

    async def take(self, limit: int) -> Sequence[int]:
        if self.failures:
            raise self.failures.pop()
        self.claims.append(limit)
        if not self.may_claim.is_set():
            self.hangs.set()
            await self.may_claim.wait()
        taken, self.queue = self.queue[:limit], self.queue[limit:]
        return taken

    async def deliver(self, unit: int) -> None:
        for _ in range(self.cancellations):
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                continue
        await self.go_on.wait()
        self.delivered.append(unit)

    async def give_back(self, unit: int) -> None:
        self.queue.append(unit)
