"""Jobs: submission, description, listing, deletion."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar

from common.config.applications import Applications
from common.config.catalogue import Catalogue
from common.database.engine import Database
from common.database.notify import EVENTS, HANDOVERS, ChannelNotifier
from common.database.tables import MAX_JOB_ID
from common.jobs.answer import Job
from common.jobs.deletion import delete_job
from common.runtime.computation import compute_in_thread
from common.storage.protocol import Storage
from common.telemetry.logs import get_logger
from gateway.http.errors import Fault
from gateway.http.memory import ByteBudget
from gateway.http.streaming import Chunks
from gateway.identity import User
from gateway.jobs.errors import JobNotFound, NameTaken, ResultsInTheWay, SubmissionRefused
from gateway.jobs.finding.pages import PER_USER, TOTAL, Pages
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.inputs import collect
from gateway.jobs.insertion import JobInsertion, NewJob
from gateway.jobs.store import JobStore
from gateway.jobs.submission import (
    JobRequest,
    find_faults,
    handover_payload,
    is_long,
    job_row,
    parse_request,
    read_request,
)
from gateway.metrics import JOBS_SUBMITTED
from gateway.settings import Limits

T = TypeVar("T")

Compute = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Calls what takes long beside the event loop."""

log = get_logger()


class Jobs:
    """Every operation is on behalf of one user, and sees that user's jobs only."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        applications: Applications,
        notifier: ChannelNotifier,
        limits: Limits,
    ) -> None:
        self._database = database
        self._storage = storage
        self._applications = applications
        self._notifier = notifier
        self._limits = limits
        self._store = JobStore(database)
        self._insertion = JobInsertion(database, notifier, unfinished=limits.unfinished_jobs)
        self.pages = Pages(self._store, ByteBudget(TOTAL, per_caller=PER_USER))

    async def submit(
        self,
        user: User,
        body: Mapping[str, Any],
        *,
        correlation_id: str,
        looking_up: AbstractAsyncContextManager[object],
        compute: Compute,
        claim: Claim | None = None,
    ) -> Job:
        """Start a job. Once this returns, the job will be handed over or end in `error`.

        `looking_up` surrounds the look-up of its files, the expensive part; `compute` checks a long
        body. Raises `Invalid`, `SubmissionRefused`, `TooManyUnfinished`, and `KeyBusy` for a claim
        that was taken over.
        """
        request = await self._check(parse_request, user, body, compute)
        return await self.start(
            request, correlation_id=correlation_id, looking_up=looking_up, claim=claim
        )

    async def start(
        self,
        request: JobRequest,
        *,
        correlation_id: str,
        looking_up: AbstractAsyncContextManager[object],
        claim: Claim | None = None,
        repeated_from: int | None = None,
    ) -> Job:
        """Start the job of a valid submission; see `submit`."""
        user = request.user
        await self._insertion.check_unfinished(user.id)
        await self._storage.ensure_user(user.id)
        try:
            async with looking_up:
                files_down, taken = await collect(
                    self._storage,
                    user.id,
                    request.selections,
                    request.entrypoint,
                    request.result_paths,
                    limit=self._limits.job_files,
                )
            check_results(request, taken)
        except SubmissionRefused as error:
            if await self._store.names_taken(user.id, [request.name]):
                raise NameTaken from error  # takes precedence over faults of files
            raise
        job = await self._insertion.one(
            NewJob(
                job_row(request, correlation_id, repeated_from=repeated_from),
                lambda date: handover_payload(request, files_down, self._storage, date),
                request.labels,
                claim,
            )
        )
        self._notifier.notify(HANDOVERS)
        self._notifier.notify(EVENTS, user.id)
        JOBS_SUBMITTED.inc()
        log.info(
            "job.submitted", job_id=job["id"], correlation_id=correlation_id, files=len(files_down)
        )
        return job

    async def read(self, user: User, data: dict[str, Any]) -> JobRequest:
        """Check a submission that is no request's body. Raises `Invalid`."""
        catalogue = await self._applications.current()
        return await compute_in_thread(read_request, user, data, catalogue)

    async def find_faults(
        self, user: User, body: Mapping[str, Any], compute: Compute
    ) -> list[Fault]:
        """Faults of a submission beyond those that its schema finds."""
        return await self._check(find_faults, user, body, compute)

    async def _check(
        self,
        check: Callable[[User, Mapping[str, Any], Catalogue], T],
        user: User,
        body: Any,
        compute: Compute,
    ) -> T:
        """Check a body against the current configuration; `compute` does it for a long one."""
        catalogue = await self._applications.current()
        if is_long(body):
            found: T = await compute(partial(check, user, body, catalogue))
            return found
        return check(user, body, catalogue)

    async def find(self, user: User, job_id: int, *, details: bool = False) -> bytes | Chunks:
        """One job, as JSON. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        return await self.pages.job(user.id, job_id, details=details)

    async def delete(self, user: User, job_id: int) -> None:
        """Remove a job, its hand-over and its results. Raises `JobNotFound`.

        An interrupted deletion is finished by a repeated call or by the dispatcher's sweep.
        """
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        if not await delete_job(self._database, self._notifier, self._storage, user.id, job_id):
            raise JobNotFound
        log.info("job.deleted", job_id=job_id)

    async def applications(self) -> bytes:
        """The application configuration, as JSON."""
        return (await self.catalogue()).as_json

    async def catalogue(self) -> Catalogue:
        """The application configuration in force."""
        return await self._applications.current()


def check_results(request: JobRequest, taken: list[bool]) -> None:
    """Raise `ResultsInTheWay` where files exist in a directory of the job's results, which the
    job's deletion would remove. `taken` goes with `result_paths`."""
    if any(taken):
        where = str(request.result_paths[taken.index(True)])
        raise ResultsInTheWay(f"'{where}' already holds files: choose another name or delete them")
