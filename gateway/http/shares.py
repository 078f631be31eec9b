"""Fair admission to expensive work: who starts now, who waits, who is refused.

Each kind of work has a budget of slots, and each caller a share of it. Where no slot is free,
callers take turns: round robin between callers, first in first out within one. So a caller's wait
depends on the number of callers ahead of it, never on how much one of them wants.
"""

from collections.abc import Mapping
from functools import partial
from typing import Self

from gateway.http.budgets import Budget, Kind
from gateway.http.limits import Caller
from gateway.http.share_pool import Pool, Usage
from gateway.metrics import SHARES, SHARES_REFUSED


class Shares:
    """Budgets by kind; what one instance admits never delays the callers of another."""

    def __init__(self, budgets: Mapping[Kind, Budget]) -> None:
        self._pools = {kind: Pool(kind, budget) for kind, budget in budgets.items()}

    def slot(self, kind: Kind, caller: Caller) -> "Slot":
        """`async with shares.slot(kind, caller):` holds one slot.

        Entering raises `LimitExceeded` where too many of the caller's requests wait already, or
        its own share stays in use for the whole wait; `Overloaded` where others use all slots.
        """
        return Slot(self._pools[kind], caller)

    def usage(self) -> dict[Kind, Usage]:
        return {kind: pool.usage() for kind, pool in self._pools.items()}

    def export(self) -> None:
        """Export the slots as metrics, read when they are scraped."""
        for kind, pool in self._pools.items():
            SHARES_REFUSED.labels(kind)
            for state in ("in_use", "lent", "waiting"):
                SHARES.labels(kind, state).set_function(partial(_read, pool, state))


class Slot:
    """Permission for one piece of work, for one task and one `async with`."""

    __slots__ = ("_pool", "caller", "is_active")

    def __init__(self, pool: "Pool", caller: Caller) -> None:
        self._pool = pool
        self.caller = caller
        self.is_active = False
        """Whether the slot counts against the budget; a lent one that others use does not."""

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    async def acquire(self) -> None:
        """Get the slot, where no `async with` serves; `release` has to follow."""
        if not self._pool.admit(self):
            await self._pool.wait(self)

    def release(self) -> None:
        self._pool.release(self)

    def lent(self) -> "_Loan":
        """`async with slot.lent():` around a wait for the client.

        If the client stands still, the slot goes to others meanwhile. Leaving the block takes it
        back, in front of those who have not started; that may take time, so a time-out for the
        client belongs inside the block. If the block raises, the work is over, and the slot is
        not waited for.
        """
        return _Loan(self._pool, self)


class _Loan:
    __slots__ = ("_pool", "_slot")

    def __init__(self, pool: "Pool", slot: Slot) -> None:
        self._pool = pool
        self._slot = slot

    async def __aenter__(self) -> None:
        self._pool.lend(self._slot)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._pool.keep(self._slot) and kind is None:
            await self._pool.take_back(self._slot)


def _read(pool: Pool, state: str) -> float:
    return float(getattr(pool.usage(), state))
