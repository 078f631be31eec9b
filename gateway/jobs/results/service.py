"""The files of one job, and its log, on behalf of its user."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import func, select

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID, jobs
from common.jobs.details import MOST, details_size
from common.jobs.results import result_directories
from common.storage.errors import NotFound
from common.storage.paths import UserPath, relative_to
from common.storage.protocol import Entry, Storage
from gateway.http.limits import user_caller
from gateway.http.memory import ByteBudget
from gateway.http.streaming import Chunks
from gateway.identity import User
from gateway.jobs.errors import JobNotFound
from gateway.jobs.pages import PER_USER, TOTAL
from gateway.jobs.results.tail import LogFiles, cut, newest_files, tail_files, tail_text
from gateway.jobs.submission import RESULTS
from gateway.settings import Limits
from gateway.trees.entries import detailed_json, entry_json
from gateway.trees.zips import Member, Packing, check_limits, list_few

_COPIES: Final = 3
"""Details are in memory as text, in UTF-8, and as what is being written."""

_SLICE: Final = 64 << 10


class NoFilesYet(Exception):
    """The job has no files, so that there is nothing to pack."""


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What a job has in its user's tree: a directory for each kind of results."""

    user: User
    job_id: int
    name: str
    directories: Mapping[str, UserPath]
    details_size: int


class Results:
    """Reads the results of one user's jobs at a time, who can name no others."""

    def __init__(self, database: Database, storage: Storage, limits: Limits) -> None:
        self._database = database
        self._storage = storage
        self._limits = limits
        self._budget = ByteBudget(TOTAL, per_caller=PER_USER)

    async def of_job(self, user: User, job_id: int) -> JobFiles:
        """Where the job's results lie. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        owned = select(jobs.c.job_name, jobs.c.paths_out, details_size).where(
            jobs.c.id == job_id, jobs.c.user_id == user.id, jobs.c.deleted_at.is_(None)
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(owned)).one_or_none()
        if row is None:
            raise JobNotFound
        found = result_directories(user.id, row.paths_out)
        own = {kind: path for kind in sorted(RESULTS) if (path := found.get(kind)) is not None}
        return JobFiles(user, job_id, row.job_name or f"job_{job_id}", own, row.details_size)

    async def listing(self, job: JobFiles, *, details: bool) -> Chunks:
        """All files of the job as JSON, sorted by path. Raises what the storage raises."""
        as_json = detailed_json if details else entry_json
        before = b"["
        for directory in _outermost(job.directories.values()):
            async with aclosing(self._files_below(directory)) as batches:
                async for batch in batches:
                    yield before + orjson.dumps([*map(as_json, batch)])[1:-1]
                    before = b","
        yield b"[]" if before == b"[" else b"]"

    async def packing(self, job: JobFiles) -> tuple[Packing, list[Member] | None]:
        """The job's files by kind, and their list, for `send_zip`.

        Raises `NoFilesYet`, and `TooLarge` for more than a zip may hold.
        """

        async def walk() -> AsyncGenerator[list[Member], None]:
            for kind, directory in job.directories.items():
                async with aclosing(self._files_below(directory)) as batches:
                    async for batch in batches:
                        yield [
                            (f"{kind}/{relative_to(entry.path, directory.parts)}", entry)
                            for entry in batch
                        ]

        packing = Packing(self._storage, job.user.id, walk)
        await check_limits(packing, self._limits)
        listing = await list_few(packing)
        if listing == []:
            raise NoFilesYet
        return packing, listing

    async def log(self, job: JobFiles, *, lines: int) -> Chunks:
        """The last lines of each log file; of the run-time details where no file has any."""
        found: LogFiles | None = None
        if (directory := job.directories.get("log")) is not None:
            found = await newest_files(directory, self._files_below(directory))
        if found is not None:
            chunks = tail_files(self._storage, found, lines)
        else:
            chunks = self._details(job, lines)
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _details(self, job: JobFiles, lines: int) -> Chunks:
        """Versions before 0009 may have kept more than `MOST` bytes; of those, the newest."""
        if not job.details_size:
            return
        size = _COPIES * min(job.details_size, MOST)
        async with self._budget.hold(user_caller(job.user.id), size):
            last = func.substr if self._database.is_sqlite else func.right
            at = -MOST if self._database.is_sqlite else MOST
            statement = select(last(jobs.c.runtime_details, at)).where(jobs.c.id == job.job_id)
            async with self._database.reading() as connection:
                text = (await connection.execute(statement)).scalar()
            content, is_all = tail_text(text or "", lines)
            left_out = job.details_size - len(content)
            if is_all and left_out > 0:
                yield cut(left_out).encode()
            view = memoryview(content)
            for start in range(0, len(view), _SLICE):
                yield view[start : start + _SLICE]

    async def _files_below(self, directory: UserPath) -> AsyncGenerator[list[Entry], None]:
        """Files at any depth, sorted by path; none where there is no directory."""
        with suppress(NotFound):
            async with aclosing(self._storage.walk(directory)) as batches:
                async for batch in batches:
                    if files := [entry for entry in batch if not entry.is_directory]:
                        yield files


def _outermost(directories: Iterable[UserPath]) -> list[UserPath]:
    """Sorted, without those inside another one, so that their files follow one another by path."""
    kept: list[UserPath] = []
    for path in sorted(set(directories), key=str):
        if not (kept and path.is_within(kept[-1])):
            kept.append(path)
    return kept
