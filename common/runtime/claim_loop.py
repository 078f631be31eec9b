"""The loop that claims work and delivers it, until it is told to stop."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from common.database.errors import DatabaseUnavailable
from common.runtime.retry import full_jitter, retry
from common.telemetry.logs import get_logger

Unit = TypeVar("Unit")

_LONGEST_PAUSE: Final = 2.0
_TO_END: Final = 2.0
"""Seconds for writing what became of a call that was cut short."""

log = get_logger()


class ClaimLoop(Generic[Unit]):
    """Claims whatever there are free slots for and delivers each unit at once, in its own task.

    It waits for a wake-up, the poll interval, a freed slot or the stop, whichever comes first, and
    never ends because of an exception.
    """

    def __init__(
        self,
        *,
        slots: Callable[[], int],
        take: Callable[[int], Awaitable[Sequence[Unit]]],
        deliver: Callable[[Unit], Awaitable[None]],
        give_back: Callable[[Unit], Awaitable[None]],
        poll: float,
    ) -> None:
        """`slots` tells how many more units may be taken now; `poll` is in seconds."""
        self.woken = asyncio.Event()
        self._slots = slots
        self._take = take
        self._deliver = deliver
        self._give_back = give_back
        self._poll = poll
        self._last_turn = float("-inf")
        self._drained = False
        self._deadline = float("inf")
        self._stopping = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._deliveries: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """Units taken and not settled yet."""
        return len(self._deliveries)

    @property
    def turn_age(self) -> float:
        """Seconds since the loop last came round without a failure."""
        return time.monotonic() - self._last_turn

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """There may be something to claim."""
        self.woken.set()

    def slot_freed(self) -> None:
        """There is room for more; no reason to look for it where nothing was due a moment ago."""
        if not self._drained:
            self.woken.set()

    async def stop(self, grace: float) -> None:
        """Claim nothing more; wait up to `grace` seconds for what is under way, then cancel it.

        So is a claim that hangs; what it may have taken unseen comes back when its lease runs out.
        May be called again, and then returns as soon as everything has ended; that begins no new
        period of grace.
        """
        deadline = self._deadline = min(self._deadline, time.monotonic() + grace)
        self._stopping = True
        self.wake()
        if self._task is not None and await _cut_short({self._task}, deadline):
            log.warning("claim.cut_short")
        if late := await _cut_short(self._deliveries, deadline):
            log.warning("deliveries.cut_short", count=late)

    async def _run(self) -> None:
        while not self._stopping:
            self.woken.clear()  # before the claim: what is announced during it counts
            pause = self._poll
            try:
                await self._turn()
                self._failures = 0
            except DatabaseUnavailable as error:
                pause = self._pause_after_failure()
                log.warning("claim.postponed", reason=str(error))
            except Exception:
                pause = self._pause_after_failure()
                log.exception("claim.failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), pause)
            if self._failures:
                await asyncio.sleep(min(pause, 0.2))  # a freed slot must not make it a busy loop

    async def _turn(self) -> None:
        free = self._slots()
        units = await self._take(free) if free > 0 else ()
        self._last_turn = time.monotonic()
        if free > 0:
            self._drained = not units
        for unit in units:
            work = self._give_back(unit) if self._stopping else self._deliver(unit)
            task = asyncio.get_running_loop().create_task(_guarded(work))
            self._deliveries.add(task)
            task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self.slot_freed()

    def _pause_after_failure(self) -> float:
        self._failures += 1
        return 0.1 + full_jitter(self._failures, first=0.2, cap=_LONGEST_PAUSE)


async def _cut_short(tasks: set[asyncio.Task[None]], deadline: float) -> int:
    """Wait for the tasks, cancel those that are late; returns how many."""
    if not tasks:
        return 0
    _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=_TO_END)
    return len(late)


async def persist(write: Callable[[], Awaitable[object]]) -> None:
    """Write the outcome of a delivery, however long the database is away.

    An outcome that is not written before the process ends is found by the sweep when the lease
    has run out.
    """
    await retry(
        write,
        on=DatabaseUnavailable,
        first=0.2,
        cap=1.0,
        on_retry=lambda error: log.warning("settlement.postponed", reason=str(error)),
    )


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except DatabaseUnavailable as error:
        # the lease runs out, and the sweep finds what was left
        log.warning("delivery.unsettled", reason=str(error))
    except Exception:
        log.exception("delivery.failed")
