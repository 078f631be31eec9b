"""Repeating a job, with parts of its submission replaced."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from itertools import islice
from typing import Any, Final

import orjson

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID
from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, check_name
from common.storage.protocol import Storage
from gateway.identity import User
from gateway.jobs.columns import Job
from gateway.jobs.errors import JobNotFound, NameTaken, ResultsInTheWay
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.repeat.names import following
from gateway.jobs.schemas import REQUEST_EXAMPLE
from gateway.jobs.service import Jobs
from gateway.jobs.store import JobStore
from gateway.jobs.submission import RESULTS, combined

_PARTS: Final = tuple(REQUEST_EXAMPLE)
"""What a job shows of its submission."""

_NAMES_AT_ONCE: Final = 64
_ATTEMPTS: Final = 100
"""Each one that fails is another repetition that has succeeded."""


class Repeating:
    """Repeats jobs of one user at a time, who can name no others."""

    def __init__(self, jobs: Jobs, database: Database, storage: Storage) -> None:
        self._jobs = jobs
        self._store = JobStore(database)
        self._storage = storage

    async def repeat(
        self,
        user: User,
        job_id: int,
        changes: Mapping[str, Any],
        *,
        correlation_id: str,
        looking_up: Callable[[], AbstractAsyncContextManager[object]],
        claim: Claim | None = None,
    ) -> Job:
        """Start a job like another one, but with `changes`; without a name, under the next free
        one. Raises `JobNotFound`, and what `Jobs.submit` raises."""
        submission = combined(await self._submission_of(user, job_id), changes)
        name = submission["job_name"]
        chosen = "job_name" in changes or name is None
        if name is None:
            del submission["job_name"]
        for attempt in range(_ATTEMPTS):
            if not chosen:
                submission["job_name"] = await self._next_free(user, name)
            request = await self._jobs.read(user, submission)
            try:
                return await self._jobs.start(
                    request,
                    correlation_id=correlation_id,
                    looking_up=looking_up(),
                    claim=claim,
                    repeated_from=job_id,
                )
            except (NameTaken, ResultsInTheWay):
                if chosen or attempt == _ATTEMPTS - 1:
                    raise
        raise NameTaken

    async def _submission_of(self, user: User, job_id: int) -> dict[str, Any]:
        """What a job was submitted with. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        job = orjson.loads(orjson.dumps(await self._store.find_long(user.id, job_id)))
        parts = {name: job[name] for name in _PARTS}
        return {**parts, "labels": await self._store.labels_of(job_id)}

    async def _next_free(self, user: User, name: str) -> str:
        """The next name that neither a job nor a directory of results has.

        A name that no job can have any more is returned as it is.
        """
        names = following(name)
        while True:
            some = list(islice(names, _NAMES_AT_ONCE))
            taken = await self._store.names_taken(user.id, some)
            for candidate in some:
                if candidate not in taken and not await self._has_results(user, candidate):
                    return candidate

    async def _has_results(self, user: User, name: str) -> bool:
        try:
            check_name(name)
        except InvalidPath:
            return False
        places = [UserPath(user.id, (kind, name)) for kind in RESULTS]
        _, taken = await self._storage.survey([], places)
        return any(taken)
