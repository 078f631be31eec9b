"""The feed of events: read once per process, for all streams and long polls that follow a user.

One connection listens for users with new events; one statement reads the events of all those that
somebody here follows. Where the database cannot announce them (SQLite, a proxy that pools
transactions), the same statement runs at an interval.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.notify import EVENTS, can_listen
from common.jobs.event_pages import (
    Deletion,
    Event,
    is_full,
    newest,
    newest_of_all,
    read_clock,
    read_deletions,
    read_labels,
    read_later,
)
from common.runtime.listening import listening
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database
from gateway.jobs.events.follower import Follower, Positions
from gateway.jobs.events.items import Item, deletion_item, event_item
from gateway.metrics import EVENT_LATENCY, FEED_AGE

_USERS_AT_ONCE: Final = 64
_POLL: Final = 5.0
"""Seconds between two reads of all followed users: a writer may die before it announces."""

_POLL_UNANNOUNCED: Final = 0.4
_PAUSE_AFTER_ERROR: Final = 0.5

_LAST_WRITE: Final = 1.0
"""Seconds after the end for which a client may still take what was written to it."""

log = get_logger()


@dataclass(slots=True)
class _Followed:
    positions: Positions
    followers: set[Follower] = field(default_factory=set)

    @property
    def with_labels(self) -> bool:
        return any(follower.with_labels for follower in self.followers)

    def hand_over(self, items: Iterable[Item]) -> None:
        for item in items:
            self.positions.advance(item)
            for follower in self.followers:
                follower.put(item)


class Feed:
    """Reads the events of followed users, and hands them to their followers.

    What one follower reads of the table for itself goes through `users`, since many may have to at
    once, after a restart.
    """

    def __init__(self, database: Database, users: Database) -> None:
        self._database = database
        self._users = users
        self._followed: dict[str, _Followed] = {}
        self._pending: set[str] = set()
        self._woken = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()
        self._ended = False
        self._latest: tuple[int, int] | None = None
        self._last_read = time.monotonic()
        self._poll = _POLL if can_listen(database.settings) else _POLL_UNANNOUNCED
        FEED_AGE.set_function(self._age)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Feed"]:
        async with (
            listening(self._database.settings, EVENTS, self._announce),
            in_background(self._read_for_ever()),
        ):
            yield self

    def end(self) -> None:
        """End all followers, and those to come: the process is about to stop."""
        self._ended = True
        last_moment = asyncio.get_running_loop().time() + _LAST_WRITE
        for limit in self._limits:
            limit.reschedule(last_moment)
        for followed in self._followed.values():
            for follower in followed.followers:
                follower.end()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Surrounds the writing to a client, who has a moment to take what is left at the `end`.

        Raises `ConnectionResetError` if that client stands still.
        """
        try:
            async with asyncio.timeout(None) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            raise ConnectionResetError("the client stands still") from None

    @asynccontextmanager
    async def follow(
        self,
        user_id: str,
        wanted: Callable[[Item], bool],
        *,
        after: int | None = None,
        with_labels: bool = False,
    ) -> AsyncIterator[Follower]:
        """Follow a user's events later than `after`, or from now on; deletions from now on.

        Items have their job's labels `with_labels`. Raises `DatabaseUnavailable`.
        """
        async with self._users.reading() as connection:
            event, deletion = await newest(connection, user_id)
        start = Positions(event if after is None else after, deletion)
        read = partial(self._read_of_one, user_id, with_labels)
        follower = Follower(start, read, wanted, with_labels=with_labels)
        if not self._followed:
            self._last_read = time.monotonic()
        # a position of the table as it was before this: what comes later is put, or read
        followed = self._followed.setdefault(user_id, _Followed(Positions(event, deletion)))
        followed.followers.add(follower)
        if self._ended:
            follower.end()
        try:
            yield follower
        finally:
            followed.followers.discard(follower)
            if not followed.followers:
                self._followed.pop(user_id, None)

    def _age(self) -> float:
        """Seconds since the latest read, if anybody follows."""
        return time.monotonic() - self._last_read if self._followed else 0.0

    async def _read_of_one(self, user_id: str, with_labels: bool, after: Positions) -> list[Item]:
        """The next items of one user; none where there are none."""
        async with self._users.reading() as connection:
            events = (await read_later(connection, {user_id: after.event}))[user_id]
            deletions = []
            if not is_full(events):  # a job's deletion comes after its events
                deletions = (await read_deletions(connection, {user_id: after.deletion}))[user_id]
            labels = await read_labels(connection, events) if with_labels else {}
        return [
            *(event_item(event, labels) for event in events),
            *(deletion_item(deletion) for deletion in deletions),
        ]

    def _announce(self, payload: str) -> None:
        named = payload.split("\n") if payload else self._followed
        self._pending.update(user for user in named if user in self._followed)
        if self._pending:
            self._woken.set()

    async def _read_for_ever(self) -> None:
        now = asyncio.get_running_loop().time
        due = now() + self._poll
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            self._woken.clear()
            try:
                if now() >= due:  # also while others are announced all the time
                    due = now() + self._poll
                    await self._poll_all()
                while self._pending:
                    await self._read_pending()
            except DatabaseUnavailable as error:
                warn_of_database("feed.postponed", reason=str(error))
                await self._read_later()
            except Exception:
                log.exception("feed.failed")
                await self._read_later()

    async def _poll_all(self) -> None:
        """Have all followed users read; on SQLite only if anything was written at all."""
        if self._database.is_sqlite and self._followed:
            async with self._database.reading() as connection:
                latest = await newest_of_all(connection)
            self._last_read = time.monotonic()
            if latest == self._latest:
                return
            self._latest = latest
        self._pending.update(self._followed)

    async def _read_later(self) -> None:
        await asyncio.sleep(_PAUSE_AFTER_ERROR)
        self._pending.update(self._followed)
        self._woken.set()

    async def _read_pending(self) -> None:
        users = [self._pending.pop() for _ in range(min(len(self._pending), _USERS_AT_ONCE))]
        followed = {user: self._followed[user] for user in users if user in self._followed}
        if not followed:
            return
        async with self._database.reading() as connection:
            after = {user: one.positions.event for user, one in followed.items()}
            events = await read_later(connection, after)
            deletions = await self._read_deletions(connection, followed, events)
            labelled = [
                event for user, one in followed.items() if one.with_labels for event in events[user]
            ]
            labels = await read_labels(connection, labelled) if labelled else {}
            now = await read_clock(connection) if any(events.values()) else None
        self._last_read = time.monotonic()
        for user, one in followed.items():
            if is_full(events[user]):
                self._pending.add(user)
            one.hand_over(event_item(event, labels) for event in events[user])
            one.hand_over(map(deletion_item, deletions.get(user, [])))
            if now is not None:
                _measure(events[user], now)

    async def _read_deletions(
        self,
        connection: AsyncConnection,
        followed: Mapping[str, _Followed],
        events: Mapping[str, list[Event]],
    ) -> dict[str, list[Deletion]]:
        """Deletions of those users of whom no further events are to be read first."""
        after = {
            user: one.positions.deletion
            for user, one in followed.items()
            if not is_full(events[user])
        }
        return await read_deletions(connection, after) if after else {}


def _measure(events: list[Event], now: datetime) -> None:
    for event in events:
        EVENT_LATENCY.observe(max(0.0, (now - event.date).total_seconds()))
