"""The changes that one process makes to users' trees, on their way into the database.

They are summed by user and written once a second, since an upload must not cost a transaction.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger
from common.usage.records import Change, Usage, mark_active, read_usage, record_changes

_FLUSH_EVERY: Final = 1.0
_MARGIN: Final = 1.0
"""Seconds by which a change may seem to have been later than it was, since its age is taken before
the database reads its clock; so much earlier it is said to have begun."""

_BATCH: Final = 500
"""Users whose changes are written in one transaction."""

log = get_logger()
_clock = time.monotonic


@dataclass(slots=True)
class Growth:
    """A change under way; `bytes` is what it adds, and what it removes is negative."""

    bytes: int = 0


@dataclass(slots=True)
class _Pending:
    """Changes of one user, times by the process's clock; `began` is None if there are none."""

    bytes: int = 0
    began: float | None = None
    ended: float = 0.0
    active_until: float = 0.0

    def add(self, other: "_Pending") -> None:
        self.active_until = max(self.active_until, other.active_until)
        if other.began is not None:
            self.bytes += other.bytes
            self.began = other.began if self.began is None else min(self.began, other.began)
            self.ended = max(self.ended, other.ended)


class UsageLedger:
    """Collects changes; they count in this process at once, in others within about a second."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: dict[str, _Pending] = {}
        self._writing = asyncio.Lock()

    @contextmanager
    def changing(self, user_id: str) -> Iterator[Growth]:
        """A change of the user's tree; it counts as well if it fails half-way."""
        growth, began = Growth(), _clock()
        try:
            yield growth
        finally:
            self.changed(user_id, growth.bytes, began=began)

    def changed(self, user_id: str, size: int, *, began: float) -> None:
        """The tree grew by `size` bytes between `began`, by `time.monotonic`, and now."""
        now = _clock()
        self._add(user_id, _Pending(size, began, now, now))

    def touch(self, user_id: str, *, active_for: float = 0.0) -> None:
        """Others than this API may have changed the tree, or may until `active_for` seconds from
        now: it is to be measured."""
        self._add(user_id, _Pending(active_until=_clock() + active_for))

    def _add(self, user_id: str, change: _Pending) -> None:
        self._pending.setdefault(user_id, _Pending()).add(change)

    async def read(self, user_id: str) -> Usage:
        """What the user's files take, with all changes of this process.

        Raises `DatabaseUnavailable`.
        """
        await asyncio.shield(self._flush_user(user_id))
        async with self._database.reading() as connection:
            return await read_usage(connection, user_id)

    async def flush(self) -> None:
        """Write all changes. Raises `DatabaseUnavailable`; they are kept then.

        A write goes on if its caller is cancelled: broken off as it commits, it would be repeated.
        """
        await asyncio.shield(self._flush_all())

    async def _flush_user(self, user_id: str) -> None:
        async with self._writing:  # else changes that are being written would be missed
            pending = self._pending.get(user_id)
            if pending is not None and pending.began is not None:
                await self._write({user_id: self._pending.pop(user_id)})

    async def _flush_all(self) -> None:
        async with self._writing:
            for _ in range(0, len(self._pending), _BATCH):
                users = sorted(self._pending)[:_BATCH]
                await self._write({user_id: self._pending.pop(user_id) for user_id in users})

    async def _write(self, pending: dict[str, _Pending]) -> None:
        try:
            async with self._database.transaction() as tx:
                now = _clock()  # the wait for the transaction is over
                changes = [
                    Change(user_id, one.bytes, now - one.began + _MARGIN, now - one.ended)
                    for user_id, one in pending.items()
                    if one.began is not None and one.bytes
                ]
                if changes:
                    await record_changes(tx, changes)
                active_for = {user: one.active_until - now for user, one in pending.items()}
                await mark_active(tx, active_for)
        except BaseException:
            for user_id, one in pending.items():
                self._add(user_id, one)
            raise

    @asynccontextmanager
    async def running(self) -> AsyncIterator["UsageLedger"]:
        """Write changes until the exit, and what is left at the exit."""
        try:
            async with in_background(self._flush_forever()):
                yield self
        finally:
            await self._try_to_flush()

    async def _flush_forever(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush()
        except DatabaseUnavailable as error:
            log.warning("usage.postponed", reason=str(error))
        except Exception:
            log.exception("usage.failed")
