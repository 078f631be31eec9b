"""The feed of events: read once per process, for all streams and long polls that follow a user.

One connection listens for users with new events; one statement reads the events of all those that
somebody here follows. Where the database cannot announce them (SQLite, a proxy that pools
transactions), the same statement runs at an interval.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.database.notify import EVENTS, can_listen
from common.jobs.events import (
    Deletion,
    Event,
    is_full,
    newest,
    read_clock,
    read_deletions,
    read_labels,
    read_later,
)
from common.runtime.listening import listening
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger
from gateway.http.responses import iso
from gateway.metrics import EVENT_LATENCY

_USERS_AT_ONCE: Final = 64
_POLL: Final = 5.0
"""Seconds between two reads of all followed users: a writer may die before it announces."""

_POLL_UNANNOUNCED: Final = 0.4
_PAUSE_AFTER_ERROR: Final = 0.5

_MAX_WAITING: Final = 256
"""Items, and bytes below, that wait for a slow follower before it reads the table instead."""

_MAX_WAITING_BYTES: Final = 131_072

log = get_logger()


@dataclass(frozen=True, slots=True)
class Item:
    """An event, or (without an id) a deletion, as a frame of `text/event-stream`."""

    id: int | None
    job_id: int
    frame: bytes
    labels: Mapping[str, str] | None = None
    """The job's labels, if a follower of its user wants them."""


@dataclass(slots=True)
class Positions:
    """The ids of the last event and the last deletion that were read of a user."""

    event: int
    deletion: int


@dataclass(slots=True)
class _Followed:
    positions: Positions
    followers: set["Follower"] = field(default_factory=set)

    @property
    def with_labels(self) -> bool:
        return any(follower.with_labels for follower in self.followers)


def event_json(event: Event) -> dict[str, object]:
    """An event as clients read it."""
    return {
        "id": event.id,
        "job_id": event.job_id,
        "job_name": event.job_name,
        "type": event.type,
        "status": event.status,
        "details": event.details,
        "source": event.source,
        "date": iso(event.date),
    }


def _event_item(event: Event, labels: Mapping[int, Mapping[str, str]]) -> Item:
    data = orjson.dumps(event_json(event))
    frame = b"id: %d\nevent: job\ndata: %b\n\n" % (event.id, data)
    return Item(event.id, event.job_id, frame, labels.get(event.job_id))


def _deletion_item(deletion: Deletion) -> Item:
    data = orjson.dumps({"job_id": deletion.job_id})
    return Item(None, deletion.job_id, b"event: deleted\ndata: %b\n\n" % data)


class Follower:
    """What follows one user's events, from a position on; `items` yields each one once, in order.

    Its buffer is bounded. Where it overflows, and at the start, the events are read from the table.
    """

    def __init__(
        self,
        feed: "Feed",
        user_id: str,
        positions: Positions,
        *,
        with_labels: bool,
    ) -> None:
        self._feed = feed
        self._user_id = user_id
        self._positions = positions
        self.with_labels = with_labels
        self._waiting: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._behind = True
        self._ended = False
        self._woken = asyncio.Event()

    def put(self, item: Item, cursor: int) -> None:
        if self._behind or self._ended:
            return
        self._waiting.append((item, cursor))
        self._bytes += len(item.frame)
        if len(self._waiting) > _MAX_WAITING or self._bytes > _MAX_WAITING_BYTES:
            self._fall_behind()
        self._woken.set()

    def end(self) -> None:
        """End `items`, now."""
        self._ended = True
        self._woken.set()

    def _fall_behind(self) -> None:
        self._waiting.clear()
        self._bytes = 0
        self._behind = True

    async def items(self, heartbeat: float) -> AsyncGenerator[Item | None]:
        """The items, until `end`; None after `heartbeat` seconds without one.

        Raises `DatabaseUnavailable`.
        """
        while not self._ended:
            if self._behind:
                async for item in self._catch_up():
                    yield item
            while self._waiting and not self._ended:
                item, cursor = self._waiting.popleft()
                self._bytes -= len(item.frame)
                if self._advance(item, cursor):
                    yield item
            if self._behind or self._ended:
                continue
            self._woken.clear()
            try:
                async with asyncio.timeout(heartbeat):
                    await self._woken.wait()
            except TimeoutError:
                yield None

    def _advance(self, item: Item, cursor: int) -> bool:
        """Whether the item is later than the position, which it then becomes."""
        positions = self._positions
        if item.id is None:
            is_new, positions.deletion = (
                cursor > positions.deletion,
                max(cursor, positions.deletion),
            )
        else:
            is_new, positions.event = cursor > positions.event, max(cursor, positions.event)
        return is_new

    async def _catch_up(self) -> AsyncGenerator[Item]:
        """Read the table until it holds nothing later.

        The buffer fills meanwhile again: what is committed after the last read is put there.
        """
        self._behind = False
        while not self._ended:
            found = await self._feed.read(
                self._user_id, self._positions, with_labels=self.with_labels
            )
            if not found:
                return
            for item, cursor in found:
                if self._advance(item, cursor):
                    yield item


class Feed:
    """Reads the events of followed users, and hands them to their followers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followed: dict[str, _Followed] = {}
        self._pending: set[str] = set()
        self._woken = asyncio.Event()
        self._ended = False
        can_wait = can_listen(database.settings)
        self._poll = _POLL if can_wait else _POLL_UNANNOUNCED

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
        for followed in self._followed.values():
            for follower in followed.followers:
                follower.end()

    @asynccontextmanager
    async def follow(
        self,
        user_id: str,
        *,
        after: int | None = None,
        with_labels: bool = False,
    ) -> AsyncIterator[Follower]:
        """Follow a user's events later than `after`, or from now on; deletions from now on.

        Items have their job's labels `with_labels`. Raises `DatabaseUnavailable`.
        """
        async with self._database.reading() as connection:
            event, deletion = await newest(connection, user_id)
        start = Positions(event if after is None else after, deletion)
        follower = Follower(self, user_id, start, with_labels=with_labels)
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

    @property
    def followers(self) -> int:
        return sum(len(followed.followers) for followed in self._followed.values())

    async def read(
        self, user_id: str, after: Positions, *, with_labels: bool
    ) -> list[tuple[Item, int]]:
        """The next items of one user, each with its position; none where there are none."""
        async with self._database.reading() as connection:
            events = (await read_later(connection, {user_id: after.event}))[user_id]
            deletions = []
            if not is_full(events):  # a job's deletion comes after its events
                deletions = (await read_deletions(connection, {user_id: after.deletion}))[user_id]
            labels = await read_labels(connection, events) if with_labels else {}
        return [(_event_item(event, labels), event.id) for event in events] + [
            (_deletion_item(deletion), deletion.id) for deletion in deletions
        ]

    def _announce(self, payload: str) -> None:
        named = payload.split("\n") if payload else self._followed
        self._pending.update(user for user in named if user in self._followed)
        if self._pending:
            self._woken.set()

    async def _read_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._poll):
                    await self._woken.wait()
            except TimeoutError:
                self._pending.update(self._followed)
            self._woken.clear()
            try:
                while self._pending:
                    await self._read_pending()
            except DatabaseUnavailable as error:
                log.warning("feed.postponed", reason=str(error))
                await self._read_later()
            except Exception:
                log.exception("feed.failed")
                await self._read_later()

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
        for user, one in followed.items():
            if is_full(events[user]):
                self._pending.add(user)
            items = [_event_item(event, labels) for event in events[user]]
            _hand_over(one, items, deletions.get(user, []))
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


def _hand_over(followed: _Followed, events: list[Item], deletions: list[Deletion]) -> None:
    for item in events:
        assert item.id is not None
        followed.positions.event = item.id
        for follower in followed.followers:
            follower.put(item, item.id)
    for deletion in deletions:
        followed.positions.deletion = deletion.id
        item = _deletion_item(deletion)
        for follower in followed.followers:
            follower.put(item, deletion.id)


def _measure(events: list[Event], now: datetime) -> None:
    for event in events:
        EVENT_LATENCY.observe(max(0.0, (now - event.date).total_seconds()))
