"""Forgets digests of files that are gone, or were changed by other means than this API.

None of them is ever shown: that takes the very version of the file. They would only stay for ever.
"""

from dataclasses import dataclass
from typing import Final

from common.database.engine import Database
from common.digests.records import Noted, find_oldest, forget_digests, note_checked
from common.storage.errors import NotFound, StorageError, StorageUnavailable
from common.storage.paths import UserPath
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from dispatcher import metrics

_BATCH: Final = 500
_LOOKED_AT_EVERY: Final = 7 * 86_400.0
"""Seconds between two looks at a file: one file costs a call of the system, or a request to S3."""

log = get_logger()


@dataclass(kw_only=True)
class DigestSweep:
    """Dispatchers that sweep at once do the same twice, which harms nothing."""

    database: Database
    storage: Storage
    every: float = _LOOKED_AT_EVERY

    async def sweep(self) -> int:
        """Look at some files; returns how many digests were forgotten."""
        kept: list[Noted] = []
        gone: list[Noted] = []
        for noted in await find_oldest(self.database, self.every, _BATCH):
            try:
                (kept if await self._is_there(noted) else gone).append(noted)
            except StorageUnavailable as error:
                log.warning("digests.postponed", reason=str(error))
                break
            except StorageError:  # of this file alone
                kept.append(noted)
        await note_checked(self.database, kept)
        await forget_digests(self.database, gone)
        metrics.RECONCILED.labels("digest_forgotten").inc(len(gone))
        return len(gone)

    async def _is_there(self, noted: Noted) -> bool:
        path = UserPath(noted.user_id, tuple(noted.path.split("/")))
        try:
            return (await self.storage.stat(path)).etag == noted.etag
        except NotFound:
            return False
