"""Measures what users' files take: one tree after another, those that may have changed.

A tree is looked at when it is due: once its user was active, not more often than every
`USAGE_INTERVAL`, and at a bounded rate, so that no number of users or files is a burden. To look at
it means to measure it, or to find that nothing of its measurement is uncertain any more. Several
dispatchers share the trees: one that looks at a tree holds it by a lease. `common.usage.records`
states what a measurement means beside the changes that are made meanwhile.
"""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import and_, case, delete, exists, func, or_, select, update

from common.database.engine import Database, utc_now
from common.database.tables import jobs, usage_changes, usage_uploads, user_usage
from common.storage.errors import InvalidPath, StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from common.usage.records import insert_active
from dispatcher import metrics
from dispatcher.stalled import IS_WITH_WORKER

NAMES_PER_SECOND: Final = 20_000
"""Rate at which one tick reads names: far below what a disk delivers, above what S3 lists."""

_LEASE: Final = 60.0
_RENEW_AFTER: Final = 20.0
_TREES_PER_TICK: Final = 100

_SECOND_LOOK: Final = 3.0
"""Seconds after which all changes that overlap a measurement are written: gateways write them
every second."""

_SETTLING: Final = 15.0
"""Seconds between two measurements of a tree that keeps changing during them."""

_PAUSE: Final = 10
"""Such a tree is measured for about a tenth of the time at most."""

_USERS, _CHANGES = user_usage.c, usage_changes.c

log = get_logger()


class LeaseLost(Exception):
    """Another dispatcher has taken the tree over."""


@dataclass(frozen=True, slots=True)
class Due:
    """A tree to look at, held by `owner` since `at`.

    `is_stale`: it has to be measured; `is_uncertain`: because it changed during a measurement.
    """

    user_id: str
    owner: str
    at: datetime
    is_stale: bool
    is_uncertain: bool


_overlapped = exists().where(
    _CHANGES.user_id == _USERS.user_id,
    _CHANGES.ended_at > _USERS.measured_at,
    _CHANGES.began_at < _USERS.measured_until,
)

_is_active = _USERS.active_until > _USERS.measured_at
_has_changed = and_(_USERS.rest_until <= utc_now(), _is_active)

_due = (
    select(
        _USERS.user_id,
        utc_now().label("at"),
        or_(_USERS.measured_at.is_(None), _has_changed, _overlapped).label("is_stale"),
        _overlapped.label("is_uncertain"),
    )
    .where(_USERS.due_at <= utc_now())
    .order_by(_USERS.due_at)
    .limit(1)
)


@dataclass(kw_only=True)
class UsageSweep:
    """Measures trees; any number of its calls may run, here and in other dispatchers.

    `interval`: seconds between two measurements of one tree.
    """

    database: Database
    storage: Storage
    interval: float
    names_per_second: float = NAMES_PER_SECOND

    async def sweep(self) -> int:
        """Look at trees that are due, up to a number; returns how many were measured."""
        measured = 0
        for _ in range(_TREES_PER_TICK):
            due = await self.claim()
            if due is None:
                break
            try:
                if due.is_stale:
                    await self._measure(due)
                    measured += 1
                else:
                    await self._put_back(due)
            except StorageError as error:  # due again when the lease has run out
                log.warning("usage.postponed", user_id=due.user_id, reason=str(error))
            except LeaseLost:
                log.warning("usage.lease_lost", user_id=due.user_id)
        return measured

    async def claim(self) -> Due | None:
        """Take the tree that has been due for longest."""
        async with self.database.reading() as connection:  # disturbs no writer of SQLite
            if (await connection.execute(_due)).first() is None:
                return None
        async with self.database.transaction() as tx:
            lock = _due.with_for_update(of=user_usage, skip_locked=True)
            row = (await tx.execute(lock)).one_or_none()
            if row is None:
                return None
            due = Due(row.user_id, uuid4().hex, row.at, bool(row.is_stale), row.is_uncertain)
            await tx.execute(
                update(user_usage)
                .where(_USERS.user_id == due.user_id)
                .values(owner=due.owner, due_at=utc_now(_LEASE))
            )
        return due

    async def _measure(self, due: Due) -> None:
        began = time.monotonic()
        try:
            size = await self._sum(due)
        except InvalidPath:
            size = 0  # of an adopted user whose name no directory can have
        took = time.monotonic() - began
        await self.finish(due, size, took)
        metrics.USAGE_SECONDS.observe(took)

    async def _sum(self, due: Due) -> int:
        """Size of the tree; renews the lease meanwhile. Raises `LeaseLost`."""
        total, renewed_at = 0, time.monotonic()
        async with aclosing(self.storage.sizes(due.user_id)) as batches:
            async for count, size in batches:
                total += size
                if time.monotonic() - renewed_at > _RENEW_AFTER:
                    renewed_at = time.monotonic()
                    await self._write(due, due_at=utc_now(_LEASE))
                await asyncio.sleep(count / self.names_per_second)
        return total

    async def finish(self, due: Due, size: int, took: float) -> None:
        """Write a measurement that took so many seconds; what it includes is not added any more.

        Raises `LeaseLost`.
        """
        rest = max(self.interval - took, took)
        second_look = max(_SETTLING if due.is_uncertain else _SECOND_LOOK, _PAUSE * took)
        await self._write(
            due,
            bytes=size,
            measured_at=due.at,
            measured_until=utc_now(),
            rest_until=due.at + timedelta(seconds=took + rest),
            due_at=utc_now(min(second_look, rest)),
            owner=None,
        )
        included = and_(_CHANGES.user_id == due.user_id, _CHANGES.ended_at <= due.at)
        async with self.database.statement() as connection:
            await connection.execute(delete(usage_changes).where(included))

    async def _put_back(self, due: Due) -> None:
        """Nothing of the measurement is uncertain: the next one is due once the tree changes."""
        await self._write(due, due_at=case((_is_active, _USERS.rest_until)), owner=None)

    async def _write(self, due: Due, **values: Any) -> None:
        held = and_(_USERS.user_id == due.user_id, _USERS.owner == due.owner)
        async with self.database.statement() as connection:
            written = await connection.execute(update(user_usage).where(held).values(values))
        if not written.rowcount:
            raise LeaseLost

    async def note_workers(self) -> None:
        """Have the trees measured into which workers write; drop uploads of killed gateways."""
        users = (
            select(jobs.c.user_id, utc_now(), utc_now())
            .where(IS_WITH_WORKER)
            .distinct()
            .order_by(jobs.c.user_id)  # so that no two writers deadlock
        )
        expired = delete(usage_uploads).where(usage_uploads.c.expires_at < utc_now(-_LEASE))
        async with self.database.transaction() as tx:
            await tx.execute(insert_active(users, is_sqlite=self.database.is_sqlite))
            await tx.execute(expired)

    async def report(self) -> None:
        """Set the metrics of the oldest measurements of active users."""
        statement = select(
            func.min(func.coalesce(_USERS.measured_at, _USERS.due_at)).label("measured"),
            func.min(_USERS.due_at).label("due"),
            utc_now().label("now"),
        ).where(_USERS.due_at.is_not(None))
        async with self.database.reading() as connection:
            row = (await connection.execute(statement)).one()
        ages = ((metrics.USAGE_OLDEST, row.measured), (metrics.USAGE_OLDEST_DUE, row.due))
        for gauge, since in ages:
            gauge.set(0.0 if since is None else max(0.0, (row.now - since).total_seconds()))
