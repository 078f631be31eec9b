"""The loop that claims work and delivers it until it is stopped."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from common.database.errors import DatabaseUnavailable
from common.runtime.retry import full_jitter, retry
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

Unit = TypeVar("Unit")
Result = TypeVar("Result")

_LONGEST_PAUSE: Final = 2.0
_TO_SETTLE: Final = 2.0
"""Seconds for writing the outcome of a call that was cut short."""

log = get_logger()


class WorkSignal:
    """Wakes a claim loop. Made before it, and handed to everything that may find it work."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._drained = False

    def wake(self) -> None:
        """There may be something to claim."""
        self._event.set()

    def slot_freed(self) -> None:
        """There is room for more, which matters only if the last claim found something."""
        if not self._drained:
            self._event.set()

    def claimed(self, count: int) -> None:
        """A claim with free slots found `count` units."""
        self._drained = count == 0

    async def wait(self, seconds: float) -> None:
        """Wait for a call since the last wait, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()


class Courier(Protocol[Unit]):
    """Claims units of work and delivers them: one item each, or a batch."""

    def slots(self, under_way: int) -> int:
        """How many more units may be claimed while `under_way` are not settled yet."""

    async def take(self, limit: int) -> Sequence[Unit]:
        """Claim up to `limit` units."""

    async def deliver(self, unit: Unit) -> None:
        """Deliver a claimed unit and settle it, also when cancelled."""

    async def give_back(self, unit: Unit) -> None:
        """Return a claimed unit undelivered."""


class ClaimLoop(Generic[Unit]):
    """Claims as many units as there are free slots and delivers each at once, in its own task.

    It waits for a signal, the poll interval, a freed slot or the stop, whichever comes first, and
    no exception ends it.
    """

    def __init__(
        self,
        courier: Courier[Unit],
        signal: WorkSignal,
        *,
        poll: float,
        to_settle: float = _TO_SETTLE,
    ) -> None:
        """In seconds: `poll`, and `to_settle`, which a cancelled delivery has left to settle."""
        self._courier = courier
        self._signal = signal
        self._poll = poll
        self._to_settle = to_settle
        self._last_turn = float("-inf")
        self._deadline = float("inf")
        self._stopping = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._deliveries: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """Units claimed and not settled yet."""
        return len(self._deliveries)

    @property
    def turn_age(self) -> float:
        """Seconds since the last claim without a failure."""
        return time.monotonic() - self._last_turn

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, grace: float) -> None:
        """Claim nothing more; wait up to `grace` seconds for deliveries, then cancel them.

        A claim that hangs is cancelled as well; items that it took unseen come back when their
        lease runs out. A repeated call begins no new period of grace.
        """
        deadline = self._deadline = min(self._deadline, time.monotonic() + grace)
        self._stopping = True
        self._signal.wake()
        if self._task is not None and await self._cut_short({self._task}, deadline):
            log.warning("claim.cut_short")
        if late := await self._cut_short(self._deliveries, deadline):
            log.warning("deliveries.cut_short", count=late)

    async def _cut_short(self, tasks: set[asyncio.Task[None]], deadline: float) -> int:
        """Wait for the tasks, cancel those that are late; returns how many."""
        if not tasks:
            return 0
        _, late = await asyncio.wait(tasks, timeout=max(0.0, deadline - time.monotonic()))
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self._to_settle)
        return len(late)

    async def _run(self) -> None:
        while not self._stopping:
            pause = self._poll
            try:
                await self._turn()
                self._failures = 0
            except Exception as error:
                self._failures += 1
                pause = 0.1 + full_jitter(self._failures, first=0.2, cap=_LONGEST_PAUSE)
                if isinstance(error, DatabaseUnavailable):
                    warn_of_database("claim.postponed", reason=str(error))
                else:
                    log.exception("claim.failed")
            await self._signal.wait(pause)
            if self._failures:
                await asyncio.sleep(min(pause, 0.2))  # a freed slot must not make it a busy loop

    async def _turn(self) -> None:
        free = self._courier.slots(self.under_way)
        units = await self._courier.take(free) if free > 0 else ()
        self._last_turn = time.monotonic()
        if free > 0:
            self._signal.claimed(len(units))
        for unit in units:
            deliver = self._courier.give_back if self._stopping else self._courier.deliver
            task = asyncio.get_running_loop().create_task(_guarded(deliver(unit)))
            self._deliveries.add(task)
            task.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self._signal.slot_freed()


async def persist(write: Callable[[], Awaitable[Result]]) -> Result:
    """Write the outcome of a delivery, however long the database is away; returns its result.

    An outcome that is not written before the process ends is found by the sweep when the lease
    has run out.
    """
    return await retry(
        write,
        on=DatabaseUnavailable,
        first=0.2,
        cap=1.0,
        on_retry=lambda error: warn_of_database("settlement.postponed", reason=str(error)),
    )


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except DatabaseUnavailable as error:
        # the lease runs out, and the sweep finds the item
        warn_of_database("delivery.unsettled", reason=str(error))
    except Exception:
        log.exception("delivery.failed")
