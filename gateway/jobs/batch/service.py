"""Submission of many jobs at once: all of them or none."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import orjson

from common.config.applications import Applications
from common.config.catalogue import Catalogue
from common.database.engine import Database
from common.database.notify import EVENTS, HANDOVERS, ChannelNotifier
from common.runtime.computation import compute_in_thread
from common.storage.paths import UserPath
from common.storage.protocol import Entry, Storage
from common.telemetry.logs import get_logger
from gateway.http.errors import MAX_FAULTS, Fault, Invalid, TooLarge
from gateway.identity import User
from gateway.jobs.errors import BatchNameTaken, SubmissionRefused, TooManyInputs
from gateway.jobs.idempotency.claims import Claim
from gateway.jobs.inputs import Inputs, check_count, look_up
from gateway.jobs.insertion import JobInsertion, NewJob
from gateway.jobs.service import check_results
from gateway.jobs.store import JobStore
from gateway.jobs.submission import (
    RESULTS,
    JobRequest,
    combined,
    handover_payload,
    job_row,
    read_request,
)
from gateway.metrics import BATCHES_SUBMITTED, JOBS_SUBMITTED
from gateway.settings import Limits

_FILES: Final = 10
"""Input files of a batch, as a multiple of those of a job; a file counts for each of its jobs."""

log = get_logger()


class Batches:
    """Starts batches, each on behalf of one user."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        applications: Applications,
        notifier: ChannelNotifier,
        limits: Limits,
    ) -> None:
        self._storage = storage
        self._applications = applications
        self._notifier = notifier
        self._limits = limits
        self._store = JobStore(database)
        self._insertion = JobInsertion(database, notifier, unfinished=limits.unfinished_jobs)

    async def submit(
        self,
        user: User,
        jobs: Sequence[dict[str, Any]],
        template: dict[str, Any] | None,
        *,
        correlation_id: str,
        working: AbstractAsyncContextManager[object],
        claim: Claim | None = None,
    ) -> dict[str, Any]:
        """Start the jobs, each completed by the template; returns the batch.

        `working` surrounds the expensive part: it takes memory as well as time. Raises as
        `Jobs.submit` does, and `TooLarge` for submissions that are too long with the template
        filled in.
        """
        async with working:
            requests, inputs = await self._prepare(user, jobs, template or {})
        new = [
            self._new_job(request, files, correlation_id)
            for request, files in zip(requests, inputs, strict=True)
        ]
        batch = await self._insertion.batch(user.id, new, claim)
        self._notifier.notify(HANDOVERS)
        self._notifier.notify(EVENTS, user.id)
        JOBS_SUBMITTED.inc(len(new))
        BATCHES_SUBMITTED.inc()
        log.info(
            "batch.submitted",
            batch_id=batch["batch_id"],
            job_ids=[job["id"] for job in batch["jobs"]],
            correlation_id=correlation_id,
        )
        return batch

    async def _prepare(
        self, user: User, jobs: Sequence[dict[str, Any]], template: dict[str, Any]
    ) -> tuple[list[JobRequest], list[orjson.Fragment]]:
        """The submissions, and the inputs of each as JSON."""
        catalogue = await self._applications.current()
        requests = await compute_in_thread(self._read, user, jobs, template, catalogue)
        await self._insertion.check_unfinished(user.id, len(requests))
        await self._storage.ensure_user(user.id)
        try:
            return requests, await self._collect(user, requests)
        except SubmissionRefused as error:
            await self._check_names(user, requests, error)  # takes precedence over faults of files
            raise

    def _read(
        self,
        user: User,
        jobs: Sequence[dict[str, Any]],
        template: dict[str, Any],
        catalogue: Catalogue,
    ) -> list[JobRequest]:
        """The submissions. Raises `Invalid`, `TooLarge`, `TooManyInputs`, and `BatchNameTaken` for
        a name that is there twice."""
        self._check_size(jobs, template)
        limit, count = self._limits.job_files, 0
        requests: list[JobRequest] = []
        faults: list[Fault] = []
        for index, job in enumerate(jobs):
            try:
                data = combined(template, job)
                request = read_request(user, data, catalogue, ("body", "jobs", index))
            except Invalid as error:
                faults += error.faults
                if len(faults) >= MAX_FAULTS:
                    break
                continue
            with _naming(request):
                check_count(request.selections, limit)
            count += len(request.selections)
            if limit and count > _FILES * limit:
                raise _too_many(limit)
            requests.append(request)
        if faults:
            raise Invalid(*faults)
        names: set[str] = set()
        for request in requests:
            if request.name in names:
                raise BatchNameTaken(request.name)
            names.add(request.name)
        return requests

    def _check_size(self, jobs: Sequence[dict[str, Any]], template: dict[str, Any]) -> None:
        """A template saves typing, no work: filled in, the jobs may be as long as any body."""
        try:
            size = len(orjson.dumps(jobs)) + len(jobs) * len(orjson.dumps(template))
        except orjson.JSONEncodeError as error:
            fault = Fault(["body"], "Value error, nested too deeply", "value_error")
            raise Invalid(fault) from error
        if size > (limit := self._limits.body_bytes):
            raise TooLarge(f"The jobs may have at most {limit} bytes, each with the template")

    async def _collect(self, user: User, requests: Sequence[JobRequest]) -> list[orjson.Fragment]:
        """The inputs of each job as JSON, looked up once where several jobs name them."""
        limit = self._limits.job_files
        paths = list(
            dict.fromkeys(
                selection.path for request in requests for selection in request.selections
            )
        )
        places = [path for request in requests for path in request.result_paths]
        found, taken = await look_up(
            self._storage, paths, places, most=_FILES * limit, too_many=_too_many(limit)
        )
        for index, request in enumerate(requests):
            check_results(request, taken[index * len(RESULTS) : (index + 1) * len(RESULTS)])
        return await compute_in_thread(
            self._arrange, user, requests, dict(zip(paths, found, strict=True))
        )

    def _arrange(
        self,
        user: User,
        requests: Sequence[JobRequest],
        found: Mapping[UserPath, list[Entry] | None],
    ) -> list[orjson.Fragment]:
        tree, limit = self._storage.uri(UserPath(user.id)), self._limits.job_files
        arranged, count = [], 0
        for request in requests:
            own = [found[selection.path] for selection in request.selections]
            with _naming(request):
                files = Inputs(request.selections, own, request.entrypoint, tree, limit).arrange()
            count += len(files)
            if limit and count > _FILES * limit:
                raise _too_many(limit)
            arranged.append(orjson.Fragment(orjson.dumps(files)))
        return arranged

    async def _check_names(
        self, user: User, requests: Sequence[JobRequest], cause: Exception
    ) -> None:
        """Raise `BatchNameTaken` if the user has a job of one of the names."""
        names = [request.name for request in requests]
        taken = await self._store.names_taken(user.id, names)
        for name in names:
            if name in taken:
                raise BatchNameTaken(name) from cause

    def _new_job(self, request: JobRequest, files: orjson.Fragment, correlation_id: str) -> NewJob:
        return NewJob(
            job_row(request, correlation_id),
            lambda date: handover_payload(request, files, self._storage, date),
            request.labels,
        )


def _too_many(limit: int) -> TooManyInputs:
    return TooManyInputs(f"The jobs of a batch may have at most {_FILES * limit} input files")


class _naming:  # noqa: N801 - reads like the statement that it is
    """`with _naming(request):` names the job in a refusal of it."""

    def __init__(self, request: JobRequest) -> None:
        self._name = request.name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SubmissionRefused):
            raise type(error)(f"Job '{self._name}': {error}") from error
