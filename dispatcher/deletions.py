"""Finishes deletions of jobs that were interrupted."""

import asyncio
from dataclasses import dataclass
from typing import Final

from common.database.engine import Database
from common.jobs.deletion import Marked, finish_deletion, take_over_interrupted
from common.runtime.tasks import for_each
from common.storage.errors import StorageError
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from dispatcher import metrics

INTERRUPTED_AFTER: Final = 60.0
"""Seconds without a renewal after which the sweep takes a deletion over."""

_DEADLINE: Final = 600.0

log = get_logger()


@dataclass(kw_only=True)
class DeletionSweep:
    """Each tick takes over a few deletions; one that fails is repeated after a minute."""

    database: Database
    storage: Storage
    limit: int = 5
    age: float = INTERRUPTED_AFTER

    async def sweep(self) -> int:
        """Returns how many deletions were finished."""
        found = await take_over_interrupted(self.database, age=self.age, limit=self.limit)
        return sum(await for_each(found, self._finish, at_once=self.limit))

    async def _finish(self, job: Marked) -> bool:
        try:
            async with asyncio.timeout(_DEADLINE):
                await finish_deletion(self.database, self.storage, job)
        except (StorageError, TimeoutError) as error:
            log.warning("deletion.postponed", job_id=job.job_id, reason=str(error))
            return False
        metrics.RECONCILED.labels("deletion_finished").inc()
        log.info("deletion.finished", job_id=job.job_id)
        return True
