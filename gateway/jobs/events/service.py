"""Events for one user: of a job, as a stream, and waiting for one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID, jobs
from common.jobs.event_pages import read_of_job
from common.jobs.lifecycle import Status
from gateway.identity import User
from gateway.jobs.errors import JobNotFound
from gateway.jobs.events.feed import Feed
from gateway.jobs.events.items import Item, event_json
from gateway.jobs.events.schemas import MAX_CURSOR, MAX_EVENTS
from gateway.jobs.labels import Label

KEEP_ALIVE: Final = 7.0
"""Seconds of silence after which a stream sends a comment. Clients are promised 15; events that a
filter leaves out may double it."""

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
        await self._status_of(user, job_id)
        async with self._database.reading() as connection:
            found = await read_of_job(
                connection, job_id, after=min(after, MAX_CURSOR), limit=min(limit, MAX_EVENTS)
            )
        return [event_json(event) for event in found]

    def writing(self) -> AbstractAsyncContextManager[None]:
        """As `Feed.writing`."""
        return self._feed.writing()

    async def stream(
        self, user: User, wanted: Filter, *, after: int | None
    ) -> AsyncGenerator[bytes]:
        """The frames of `text/event-stream`, until the process drains."""
        following = self._feed.follow(
            user.id,
            wanted.matches,
            after=None if after is None else min(after, MAX_CURSOR),
            with_labels=bool(wanted.labels),
        )
        async with following as follower:
            yield _RETRY
            async with aclosing(follower.batches(KEEP_ALIVE)) as batches:
                async for items in batches:
                    yield b"".join([item.frame for item in items]) or _COMMENT

    async def wait_for_change(self, user: User, job_id: int, *, seconds: float) -> None:
        """Wait until the job's status is another one, or the time is over.

        Does not wait for a job that has ended. Raises `JobNotFound`, also for one that is deleted
        meanwhile.
        """
        first = await self._status_of(user, job_id)
        if Status.of_row(first).is_final:
            return
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(seconds),
                self._feed.follow(user.id, Filter(frozenset({job_id})).matches) as follower,
                aclosing(follower.batches(seconds)) as batches,
            ):
                # it may have changed before it was followed
                while await self._status_of(user, job_id) == first:
                    if await anext(batches, None) is None:
                        return  # the process drains

    async def _status_of(self, user: User, job_id: int) -> str:
        """Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        owned = select(jobs.c.status).where(
            jobs.c.id == job_id, jobs.c.user_id == user.id, jobs.c.deleted_at.is_(None)
        )
        async with self._database.reading() as connection:
            status: str | None = (await connection.execute(owned)).scalar_one_or_none()
        if status is None:
            raise JobNotFound
        return status
