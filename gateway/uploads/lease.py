"""The right to write to one upload, kept while a request does, and what it confirms meanwhile.

What a request has confirmed is in the database with the lease's renewal: a process that is killed
loses what came since: on a disk about a twentieth of a second, on S3 the parts that are in flight.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from common.database.engine import Database
from common.database.errors import DatabaseUnavailable
from common.telemetry.logs import get_logger
from common.uploads.records import LEASE, RELEASED, RENEW_EVERY, Upload, release, renew
from gateway.uploads.errors import UploadBusy

_GAP: Final = 0.05
"""Seconds between two confirmations of a fast upload."""

log = get_logger()


def new_owner() -> str:
    """A token for a lease."""
    return uuid4().hex


class Lease:
    """An upload that only the holder of this lease writes to; `upload` is as it is confirmed.

    `retention`: seconds after the last byte at which the upload expires. `keeps`: the lease lasts
    until `give_back`, even if all is confirmed before.
    """

    def __init__(
        self,
        database: Database,
        upload: Upload,
        owner: str,
        *,
        retention: float,
        keeps: bool = False,
    ) -> None:
        self.upload = upload
        self.owner = owner
        self.is_held = True
        self._database = database
        self._retention = retention
        self._keeps = keeps
        self._until = time.monotonic() + LEASE
        self._outage: DatabaseUnavailable | None = None
        self._due = asyncio.Event()
        self._reached = upload.received
        self._has_moved = False

    @asynccontextmanager
    async def renewed(self, changes: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
        """Renew the lease in the background, and note what `changes()` returns each time.

        `changes` are columns; with `received` among them, the upload has so many bytes.
        """
        stop = asyncio.Event()
        task = asyncio.create_task(self._renew_until(stop, changes))
        try:
            yield
        finally:
            stop.set()
            self._due.set()
            await asyncio.wait([task])  # not cancelled: whether it has confirmed must be known
            if not task.cancelled():
                task.result()

    def moved(self, reached: int) -> None:
        """Bytes have arrived, and can be confirmed up to `reached`.

        Raises `UploadBusy` if another has taken the upload over, and `DatabaseUnavailable` if it
        may have.
        """
        self._has_moved = True
        if not self.is_held:
            raise UploadBusy("Another request writes to the upload")
        if time.monotonic() > self._until:
            raise self._outage or UploadBusy("Another request may write to the upload")
        if reached > self._reached:
            self._reached = reached
            self._due.set()

    async def confirm(self, values: dict[str, Any], *, ends: bool = False) -> None:
        """Note columns of the upload; `ends` gives the lease back. Raises `UploadBusy`."""
        began, ends = time.monotonic(), ends and not self._keeps
        expires_at = await renew(
            self._database,
            self.upload.id,
            self.owner,
            {**values, **(RELEASED if ends else {})},
            retention=self._retention if self._has_moved else None,
        )
        if expires_at is None:
            self.is_held = False
            raise UploadBusy("Another request writes to the upload")
        self._has_moved = False
        self._until = began + LEASE
        self.is_held = not ends
        self.upload = replace(
            self.upload,
            expires_at=expires_at,
            received=values.get("received", self.upload.received),
            sha256=values.get("sha256", self.upload.sha256),
        )

    async def give_back(self) -> None:
        """Let others write, if that is still to be said."""
        if self.is_held:
            self.is_held = False
            with suppress(DatabaseUnavailable):
                await release(self._database, self.upload.id, self.owner)

    async def _renew_until(
        self, stop: asyncio.Event, changes: Callable[[], dict[str, Any]]
    ) -> None:
        while self.is_held:
            # at first as well: a portion that takes no longer is confirmed by its end alone
            with suppress(TimeoutError):
                async with asyncio.timeout(_GAP):
                    await stop.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_EVERY):
                    await self._due.wait()
            self._due.clear()
            if stop.is_set():
                return
            try:
                await self.confirm(changes())
            except DatabaseUnavailable as error:
                self._outage = error
                log.warning("upload.unconfirmed", reason=str(error))
            except UploadBusy:
                return
