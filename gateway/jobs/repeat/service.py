"""Repeating a job, with parts of its submission replaced."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from itertools import islice
from typing import Any, Final

import orjson

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID
from common.jobs.answer import Job
from common.storage.errors import InvalidPath
from common.storage.paths import UserPath, check_name
from common.storage.protocol import Storage
from gateway.identity import User
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
"""Where one fails, another job has just got the name."""


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
        working: AbstractAsyncContextManager[object],
        claim: Claim | None = None,
    ) -> Job:
        """Start a job like another one, but with `changes`; without a name, under the next free
        one.

        `working` surrounds all of it: the other job takes memory, however short the changes are.
        Raises `JobNotFound`, and what `Jobs.submit` raises.
        """
        async with working:
            original = await self._submission_of(user, job_id)
            submission = combined(original, changes)

            async def start(data: dict[str, Any]) -> Job:
                return await self._jobs.start(
                    await self._jobs.read(user, data),
                    correlation_id=correlation_id,
                    looking_up=nullcontext(),
                    claim=claim,
                    repeated_from=job_id,
                )

            if "job_name" in changes:
                return await start(submission)
            del submission["job_name"]
            if original["job_name"] is None:  # of an earlier service: refused as missing
                return await start(submission)
            for _ in range(_ATTEMPTS):
                name = await self._next_free(user, original["job_name"])
                with suppress(NameTaken, ResultsInTheWay):
                    return await start({**submission, "job_name": name})
        raise NameTaken

    async def _submission_of(self, user: User, job_id: int) -> dict[str, Any]:
        """What a job was submitted with. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        job = orjson.loads(orjson.dumps(await self._store.find_long(user.id, job_id)))
        parts = {name: job[name] for name in _PARTS}
        return {**parts, **await self._store.chosen_of(job_id)}

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
