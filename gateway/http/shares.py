"""Fair admission to expensive work: who starts now, who waits, who is refused.

Each kind of work has a budget of slots, and each caller a share of it. Where no slot is free,
callers take turns: round robin between callers, first in first out within one. So a caller's wait
depends on the number of callers ahead of it, never on how much one of them wants.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self

from gateway.http.limits import Caller, LimitExceeded, Overloaded

Kind = Literal["listing", "zip", "transfer", "submission", "large_body", "event_stream"]

_RETRY_AFTER: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of one kind of work; times in seconds.

    A caller holds at most `per_caller` of all `slots`, lent ones included, and at most `waiting`
    of its requests wait, each for at most `longest_wait`. A lent slot goes to the next in turn
    once its client has stood still for `lend_after`.
    """

    slots: int
    per_caller: int
    waiting: int
    longest_wait: float
    lend_after: float = 0.25


@dataclass(frozen=True, slots=True)
class Usage:
    """One kind at this moment; `refused` counts from the start of the process."""

    in_use: int
    lent: int
    waiting: int
    refused: int


class Shares:
    """Budgets by kind; what one instance admits never delays the callers of another."""

    def __init__(self, budgets: Mapping[Kind, Budget]) -> None:
        self._pools = {kind: _Pool(kind, budget) for kind, budget in budgets.items()}

    def slot(self, kind: Kind, caller: Caller) -> "Slot":
        """`async with shares.slot(kind, caller):` holds one slot.

        Entering raises `LimitExceeded` where too many of the caller's requests wait already, or
        its own share stays in use for the whole wait; `Overloaded` where others use all slots.
        """
        return Slot(self._pools[kind], caller)

    def usage(self) -> dict[Kind, Usage]:
        return {kind: pool.usage() for kind, pool in self._pools.items()}


class Slot:
    """Permission for one piece of work, for one task and one `async with`."""

    __slots__ = ("_pool", "caller", "is_active")

    def __init__(self, pool: "_Pool", caller: Caller) -> None:
        self._pool = pool
        self.caller = caller
        self.is_active = False
        """Whether the slot counts against the budget; a lent one that others use does not."""

    async def __aenter__(self) -> Self:
        if not self._pool.admit(self):
            await self._pool.wait(self)
        return self

    async def __aexit__(self, *_: object) -> None:
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

    def __init__(self, pool: "_Pool", slot: Slot) -> None:
        self._pool = pool
        self._slot = slot

    async def __aenter__(self) -> None:
        self._pool.lend(self._slot)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._pool.keep(self._slot) and kind is None:
            await self._pool.take_back(self._slot)


_Queue = OrderedDict[Slot, asyncio.Future[bool]]
"""Waiting slots, first in first out. The result of a turn: whether the slot was granted."""


class _Pool:
    """The slots of one kind.

    Invariant: while a slot is free, nobody waits whose share allows another one.
    """

    def __init__(self, kind: Kind, budget: Budget) -> None:
        self._kind = kind.replace("_", " ")
        self._budget = budget
        self._free = budget.slots
        self._refused = 0
        self._open: dict[Caller, int] = {}  # slots by caller, lent ones included
        self._queues: dict[Caller, _Queue] = {}
        self._ready: OrderedDict[Caller, None] = OrderedDict()  # who may be served, in turn
        self._returning: _Queue = OrderedDict()  # slots that others use, and that are wanted back
        self._returned_last = False
        self._idle: OrderedDict[Slot, float] = OrderedDict()  # lent, and since when
        self._timer: asyncio.TimerHandle | None = None

    def usage(self) -> Usage:
        in_use = self._budget.slots - self._free
        return Usage(
            in_use=in_use,
            lent=sum(self._open.values()) - in_use + len(self._idle),
            waiting=sum(map(len, self._queues.values())),
            refused=self._refused,
        )

    def admit(self, slot: Slot) -> bool:
        """Grant a slot if one is free now; by the invariant this overtakes nobody."""
        held = self._open.get(slot.caller, 0)
        if not self._free or held >= self._budget.per_caller:
            return False
        self._free -= 1
        self._open[slot.caller] = held + 1
        slot.is_active = True
        return True

    async def wait(self, slot: Slot) -> None:
        """Wait for this slot's turn. Raises `LimitExceeded`."""
        caller, budget = slot.caller, self._budget
        if len(self._queues.get(caller, ())) >= budget.waiting:
            self._refused += 1
            raise self._share_exceeded()
        loop = asyncio.get_running_loop()
        turn = self._queues.setdefault(caller, OrderedDict())[slot] = loop.create_future()
        if self._open.get(caller, 0) < budget.per_caller:
            self._ready.setdefault(caller)
            self._reclaim_when_due()
        timer = loop.call_later(budget.longest_wait, self._expire, slot, turn)
        try:
            granted = await turn
        except BaseException:
            if slot.is_active:  # granted and cancelled in the same turn of the loop
                self.release(slot)
            else:
                self._leave(slot)
            raise
        finally:
            timer.cancel()
        if not granted:
            self._refused += 1
            if self._open.get(caller, 0) >= budget.per_caller:
                raise self._share_exceeded()
            raise Overloaded(f"{budget.longest_wait:g} s of waiting ({self._kind})", _RETRY_AFTER)

    def release(self, slot: Slot) -> None:
        caller = slot.caller
        held = self._open[caller] - 1
        if held:
            self._open[caller] = held
        else:
            del self._open[caller]
        if slot.is_active:
            slot.is_active = False
            self._free += 1
        if caller in self._queues:
            self._ready.setdefault(caller)
        self._serve()

    def lend(self, slot: Slot) -> None:
        if slot.is_active:
            self._idle[slot] = asyncio.get_running_loop().time()
            self._reclaim_when_due()

    def keep(self, slot: Slot) -> bool:
        """End a loan; whether nobody has taken the slot meanwhile."""
        self._idle.pop(slot, None)
        return slot.is_active

    async def take_back(self, slot: Slot) -> None:
        if self._free:
            self._free -= 1
            slot.is_active = True
            return
        turn = self._returning[slot] = asyncio.get_running_loop().create_future()
        self._reclaim_when_due()
        try:
            await turn
        finally:
            self._returning.pop(slot, None)  # only a cancelled one is still there

    def _share_exceeded(self) -> LimitExceeded:
        limit = f"{self._budget.per_caller} at once and {self._budget.waiting} waiting"
        return LimitExceeded(f"{limit} ({self._kind})", _RETRY_AFTER)

    def _expire(self, slot: Slot, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._leave(slot)
            turn.set_result(False)

    def _leave(self, slot: Slot) -> None:
        queue = self._queues.get(slot.caller)
        if queue is not None and slot in queue:
            del queue[slot]
            if not queue:
                del self._queues[slot.caller]
                self._ready.pop(slot.caller, None)

    def _serve(self) -> None:
        """Grant what is free to those whose turn it is.

        Work under way comes before work that has not started, but never twice in a row: a crowd
        of slow transfers would keep everybody else out.
        """
        while self._free and (self._ready or self._returning):
            self._returned_last = bool(self._returning) and not (
                self._returned_last and self._ready
            )
            slot, turn = (
                self._returning.popitem(last=False) if self._returned_last else self._next_in_turn()
            )
            self._free -= 1
            slot.is_active = True
            if not turn.done():  # else cancelled just now: its task gives the slot back
                turn.set_result(True)
        self._reclaim_when_due()

    def _next_in_turn(self) -> tuple[Slot, asyncio.Future[bool]]:
        caller, _ = self._ready.popitem(last=False)
        queue = self._queues[caller]
        held = self._open[caller] = self._open.get(caller, 0) + 1
        served = queue.popitem(last=False)
        if not queue:
            del self._queues[caller]
        elif held < self._budget.per_caller:
            self._ready[caller] = None
        return served

    def _reclaim_when_due(self) -> None:
        if self._timer is None and self._idle and (self._ready or self._returning):
            since = next(iter(self._idle.values()))
            due = since + self._budget.lend_after
            self._timer = asyncio.get_running_loop().call_at(due, self._reclaim, since)

    def _reclaim(self, since: float) -> None:
        """Take the slot that has been idle longest, if that is for as long as `since`."""
        self._timer = None
        if (self._ready or self._returning) and self._idle:
            slot, lent_at = next(iter(self._idle.items()))
            if lent_at <= since:
                del self._idle[slot]
                slot.is_active = False
                self._free += 1
                self._serve()
        self._reclaim_when_due()
