"""Events for one user: of a job, as a stream, and waiting for one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID, jobs
from common.jobs.events import read_of_job
from common.jobs.lifecycle import Status
from gateway.identity import User
from gateway.jobs.errors import JobNotFound
from gateway.jobs.events.feed import Feed, Item, event_json
from gateway.jobs.events.schemas import MAX_CURSOR, MAX_EVENTS
from gateway.jobs.labels import Label

KEEP_ALIVE: Final = 10.0
"""Seconds of silence after which a stream sends a comment; clients are promised 15."""

_RETRY: Final = b"retry: 3000\n\n"
_COMMENT: Final = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs a stream is about: any of `jobs`, with all `labels`; empty: no restriction."""

    jobs: frozenset[int] = frozenset()
    labels: tuple[Label, ...] = ()

    def matches(self, item: Item) -> bool:
        if self.jobs and item.job_id not in self.jobs:
            return False
        labels = item.labels or {}
        return all(key in labels and value in {None, labels[key]} for key, value in self.labels)


class Events:
    """Reads and follows events on behalf of users, who see those of their own jobs only."""

    def __init__(self, database: Database, feed: Feed) -> None:
        self._database = database
        self._feed = feed

    async def of_job(
        self, user: User, job_id: int, *, after: int, limit: int
    ) -> list[dict[str, object]]:
        """A job's events later than `after`, oldest first. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        owned = select(jobs.c.id).where(
            jobs.c.id == job_id, jobs.c.user_id == user.id, jobs.c.deleted_at.is_(None)
        )
        async with self._database.reading() as connection:
            if (await connection.execute(owned)).first() is None:
                raise JobNotFound
            found = await read_of_job(
                connection, job_id, after=min(after, MAX_CURSOR), limit=min(limit, MAX_EVENTS)
            )
        return [event_json(event) for event in found]

    async def stream(
        self, user: User, wanted: Filter, *, after: int | None
    ) -> AsyncGenerator[bytes]:
        """The frames of `text/event-stream`, until the process drains."""
        following = self._feed.follow(
            user.id,
            after=None if after is None else min(after, MAX_CURSOR),
            with_labels=bool(wanted.labels),
        )
        async with following as follower:
            yield _RETRY
            last = time.monotonic()
            async with aclosing(follower.items(KEEP_ALIVE)) as items:
                async for item in items:
                    if item is not None and wanted.matches(item):
                        last = time.monotonic()
                        yield item.frame
                    elif time.monotonic() - last >= KEEP_ALIVE:
                        last = time.monotonic()
                        yield _COMMENT

    async def wait_for_change(
        self,
        user: User,
        job_id: int,
        find_status: Callable[[], Awaitable[str]],
        *,
        seconds: float,
    ) -> None:
        """Return once a job's status has changed or the time is over.

        For a job that has ended this is at once. Raises what `find_status` does.
        """
        first = await find_status()
        if Status.of_row(first).is_final:
            return
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(seconds),
                self._feed.follow(user.id) as follower,
                aclosing(follower.items(seconds)) as items,
            ):
                # it may have changed before it was followed
                while await find_status() == first:
                    async for item in items:
                        if item is not None and item.job_id == job_id:
                            break
                    else:
                        return  # the process drains
