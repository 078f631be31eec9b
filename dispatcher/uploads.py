"""Ends resumable uploads that nobody goes on with, and places files whose gateway was killed."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from common.database.engine import Database
from common.runtime.tasks import BoundedTasks
from common.storage.errors import StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from common.uploads.placing import place
from common.uploads.records import Upload, note_swept, prune, take_expired, take_whole
from dispatcher import metrics

_BATCH: Final = 100
_BATCHES: Final = 50
_AT_ONCE: Final = 8
"""Uploads that are ended at a time: each takes S3 a few requests, and thousands may expire in the
same minute."""

_REMEMBERED: Final = 86_400.0
"""Seconds for which a swept upload is still answered as expired."""

_PRUNED: Final = 1_000

log = get_logger()


@dataclass(kw_only=True)
class UploadSweep:
    """Each upload is taken by a lease: any number of dispatchers may sweep, and a gateway's writer
    is left alone. One that fails is repeated once the lease has run out."""

    database: Database
    storage: Storage
    remembered: float = _REMEMBERED

    async def sweep(self) -> int:
        """Returns how many uploads were swept or placed."""
        owner = uuid4().hex
        count = 0
        for _ in range(_BATCHES):
            expired = await take_expired(self.database, owner, _BATCH)
            count += await self._each(expired, self._expire, owner, "upload_expired")
            if len(expired) < _BATCH:
                break
        whole = await take_whole(self.database, owner, _BATCH)
        count += await self._each(whole, self._place, owner, "upload_placed")
        await prune(self.database, self.remembered, _PRUNED)
        return count

    async def _each(
        self,
        uploads: list[Upload],
        work: Callable[[Upload, str], Awaitable[None]],
        owner: str,
        outcome: str,
    ) -> int:
        done = 0

        async def one(upload: Upload) -> None:
            nonlocal done
            try:
                await work(upload, owner)
            except StorageError as error:
                log.warning("upload.postponed", upload_id=upload.id, reason=str(error))
                return
            done += 1
            metrics.RECONCILED.labels(outcome).inc()

        async with BoundedTasks(_AT_ONCE) as tasks:
            for upload in uploads:
                await tasks.start(one, upload)
        return done

    async def _expire(self, upload: Upload, owner: str) -> None:
        if not upload.is_finished:
            await self.storage.abandon(upload.staged)
            log.info("upload.expired", upload_id=upload.id, user_id=upload.user_id)
        await note_swept(self.database, upload.id, owner)

    async def _place(self, upload: Upload, owner: str) -> None:
        await place(self.database, self.storage, upload, owner)
        log.info("upload.placed", upload_id=upload.id, user_id=upload.user_id)
