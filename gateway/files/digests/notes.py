"""Digests on their way into the database: written as soon as it takes them, many at once.

An upload must not cost a transaction, nor fail because the database is away. What is not written
yet is known to this process; if it is killed, the digest is unknown, never wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.digests.records import Noted, note_digests
from common.runtime.tasks import in_background
from common.telemetry.logs import get_logger
from common.telemetry.outages import warn_of_database

_BATCH: Final = 500
_PAUSE: Final = 0.05
"""Seconds between two transactions, in which digests gather."""

_RETRY_AFTER: Final = 1.0
_LAST_WRITE: Final = 2.0
_MOST: Final = 20_000
"""Digests that wait for a database that is away; beyond, the oldest are given up."""

log = get_logger()


class DigestNotes:
    """Notes digests in the background, from `running` on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], Noted] = {}
        self._has_some = asyncio.Event()
        self._writing = asyncio.Lock()

    def add(self, noted: Noted) -> None:
        """Note a digest, in place of the one at its path; to be called in the event loop."""
        key = noted.user_id, noted.path
        self._waiting.pop(key, None)  # to the end: the order is that of age
        self._waiting[key] = noted
        self._has_some.set()
        if len(self._waiting) > _MOST:
            del self._waiting[next(iter(self._waiting))]

    def find(self, user_id: str, path: str) -> Noted | None:
        """A digest that is not written yet."""
        return self._waiting.get((user_id, path))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Write until the exit, and what is left then."""
        async with in_background(self._write_forever()):
            yield self
        with suppress(DatabaseUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST_WRITE):
                while self._waiting:
                    await self.write()

    async def _write_forever(self) -> None:
        while True:
            await self._has_some.wait()
            pause = _PAUSE
            try:
                await self.write()
            except DatabaseUnavailable as error:
                warn_of_database("digests.postponed", reason=str(error))
                pause = _RETRY_AFTER
            await asyncio.sleep(pause)

    async def write_at_once(self, noted: Sequence[Noted]) -> None:
        """Write digests of files that were just stored. Raises `DatabaseUnavailable`.

        Those that wait for the same paths are of files that these have replaced.
        """
        async with self._writing:
            for one in noted:
                self._waiting.pop((one.user_id, one.path), None)
            async with self._database.statement() as tx:
                await note_digests(tx, noted)

    async def write(self) -> None:
        """Write those that have waited longest. Raises `DatabaseUnavailable`, and keeps them."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        batch = dict(list(self._waiting.items())[:_BATCH])
        try:
            if batch:
                async with self._database.statement() as tx:
                    await note_digests(tx, list(batch.values()))
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("digests.lost", count=len(batch))  # else they would hold up all others
        for key, noted in batch.items():
            if self._waiting.get(key) is noted:
                del self._waiting[key]
        if not self._waiting:
            self._has_some.clear()
