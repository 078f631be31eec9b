"""The slots of one kind of expensive work: granted, lent, waited for in turn."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from common.runtime.fair_queue import FairQueue
from gateway.http.budgets import Budget, Kind
from gateway.http.limits import Caller, LimitExceeded, Overloaded
from gateway.metrics import SHARES_REFUSED

_RETRY_AFTER: Final = 2.0


class Slot(Protocol):
    """What is granted (`gateway.http.shares.Slot`)."""

    caller: Caller
    is_active: bool

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """One kind at this moment; `refused` counts from the start of the process."""

    in_use: int
    lent: int
    waiting: int
    refused: int


class Pool:
    """The slots of one kind.

    Invariant: while a slot is free, nobody waits whose share allows another one.
    """

    def __init__(self, kind: Kind, budget: Budget) -> None:
        self._kind = kind
        self._budget = budget
        self._most_begun = budget.begun_per_caller or budget.per_caller
        self._free = budget.slots
        self._refused = 0
        self._begun: dict[Caller, int] = {}  # slots by caller, lent ones included
        self._active: dict[Caller, int] = {}  # those that count against the budget
        self._starting: FairQueue[Caller, Slot] = FairQueue(self._may_start)
        self._returning: FairQueue[Caller, Slot] = FairQueue(self._may_use_more)
        self._returned_last = False
        self._idle: dict[Slot, float] = {}  # lent, and since when, the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def usage(self) -> Usage:
        in_use = self._budget.slots - self._free
        return Usage(
            in_use=in_use,
            lent=sum(self._begun.values()) - in_use + len(self._idle),
            waiting=len(self._starting),
            refused=self._refused,
        )

    def admit(self, slot: Slot) -> bool:
        """Grant a slot if one is free now; by the invariant this overtakes nobody."""
        caller = slot.caller
        active, begun = self._active.get(caller, 0), self._begun.get(caller, 0)
        if not self._free or active >= self._budget.per_caller or begun >= self._most_begun:
            return False
        self._free -= 1
        self._active[caller], self._begun[caller] = active + 1, begun + 1
        slot.is_active = True
        return True

    async def wait(self, slot: Slot) -> None:
        """Wait for this slot's turn. Raises `LimitExceeded`."""
        caller, budget = slot.caller, self._budget
        if self._starting.waiting(caller) >= budget.waiting:
            raise self._refusal(own=bool(budget.waiting) or not self._may_start(caller))
        turn = self._starting.push(caller, slot)
        self._reclaim_when_due()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(budget.longest_wait, self._expire, slot, turn)
        try:
            granted = await turn
        except BaseException:
            if slot.is_active:  # granted and cancelled in the same turn of the loop
                self.release(slot)
            else:
                self._starting.remove(caller, slot)
            raise
        finally:
            timer.cancel()
        if not granted:
            raise self._refusal(own=not self._may_start(caller))

    def release(self, slot: Slot) -> None:
        caller = slot.caller
        _count_down(self._begun, caller)
        if slot.is_active:
            slot.is_active = False
            self._free += 1
            _count_down(self._active, caller)
        if self._starting or self._returning:
            self._refresh(caller)
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
        if self._free and self._may_use_more(slot.caller):
            self._grant(slot)
            return
        turn = self._returning.push(slot.caller, slot)
        self._reclaim_when_due()
        try:
            await turn
        finally:
            self._returning.remove(slot.caller, slot)  # only a cancelled one is still there

    def _may_use_more(self, caller: Caller) -> bool:
        return self._active.get(caller, 0) < self._budget.per_caller

    def _may_start(self, caller: Caller) -> bool:
        begun = self._begun.get(caller, 0)
        return begun < self._most_begun and self._may_use_more(caller)

    def _grant(self, slot: Slot, *, begin: bool = False) -> None:
        caller = slot.caller
        self._free -= 1
        self._active[caller] = self._active.get(caller, 0) + 1
        if begin:
            self._begun[caller] = self._begun.get(caller, 0) + 1
        slot.is_active = True
        self._refresh(caller)

    def _withdraw(self, slot: Slot) -> None:
        slot.is_active = False
        self._free += 1
        _count_down(self._active, slot.caller)
        self._refresh(slot.caller)

    def _refresh(self, caller: Caller) -> None:
        self._starting.refresh(caller)
        self._returning.refresh(caller)

    def _refusal(self, *, own: bool) -> LimitExceeded:
        self._refused += 1
        SHARES_REFUSED.labels(self._kind).inc()
        budget, kind = self._budget, self._kind.replace("_", " ")
        if own:
            waiting = f" and {budget.waiting} waiting" if budget.waiting else ""
            limit = f"{budget.per_caller} at once{waiting}"
            return LimitExceeded(f"{limit} ({kind})", _RETRY_AFTER)
        limit = f"{budget.longest_wait:g} s of waiting"
        if not budget.waiting:
            limit = f"{budget.slots} at once for all callers"
        return Overloaded(f"{limit} ({kind})", _RETRY_AFTER)

    def _expire(self, slot: Slot, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._starting.remove(slot.caller, slot)
            turn.set_result(False)

    def _serve(self) -> None:
        """Grant what is free to those whose turn it is.

        Work under way comes before work that has not started, but never twice in a row: a crowd
        of slow transfers would keep everybody else out.
        """
        while self._free and (self._starting.is_ready or self._returning.is_ready):
            self._returned_last = self._returning.is_ready and not (
                self._returned_last and self._starting.is_ready
            )
            slot, turn = (self._returning if self._returned_last else self._starting).pop()
            self._grant(slot, begin=not self._returned_last)
            if not turn.done():  # else cancelled just now: its task gives the slot back
                turn.set_result(True)
        self._reclaim_when_due()

    def _is_wanted(self, slot: Slot) -> bool:
        """Whether somebody who waits could use this lent slot: all who may be served, or its own
        caller, whose share is in use."""
        caller = slot.caller
        return (
            self._starting.is_ready
            or self._returning.is_ready
            or bool(self._returning.waiting(caller))
            or (
                bool(self._starting.waiting(caller))
                and self._begun.get(caller, 0) < self._most_begun
            )
        )

    def _reclaim_when_due(self) -> None:
        if self._timer is not None or not self._idle or not (self._starting or self._returning):
            return
        wanted = next(filter(self._is_wanted, self._idle), None)
        if wanted is not None:
            since = self._idle[wanted]
            due = since + self._budget.lend_after
            self._timer = asyncio.get_running_loop().call_at(due, self._reclaim, since)

    def _reclaim(self, since: float) -> None:
        """Take the wanted slot that has been idle longest, if that is for as long as `since`."""
        self._timer = None
        wanted = next(filter(self._is_wanted, self._idle), None)
        if wanted is not None and self._idle[wanted] <= since:
            del self._idle[wanted]
            self._withdraw(wanted)
            self._serve()
        self._reclaim_when_due()


def _count_down(counts: dict[Caller, int], caller: Caller) -> None:
    left = counts[caller] - 1
    if left:
        counts[caller] = left
    else:
        del counts[caller]
