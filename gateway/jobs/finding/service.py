"""Finding jobs on behalf of one user, and labelling them."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID
from gateway.http.streaming import Chunks
from gateway.identity import User
from gateway.jobs.errors import JobNotFound
from gateway.jobs.finding.cursors import Cursors
from gateway.jobs.finding.listing import prepared
from gateway.jobs.finding.pages import Pages
from gateway.jobs.finding.search import Search
from gateway.jobs.finding.statements import Plan
from gateway.jobs.schemas import MAX_PAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A part of what a search finds: `limit` jobs behind a cursor, or behind `offset` others."""

    search: Search
    limit: int
    offset: int = 0
    cursor: str | None = None
    details: bool = False
    count: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A page as JSON, the cursor of the next one if there is one, and the count if it was asked
    for."""

    body: bytes | Chunks
    cursor: str | None
    total: int | None


class Finding:
    """Every operation sees the jobs of one user only."""

    def __init__(self, database: Database, pages: Pages, cursors: Cursors) -> None:
        self._database = database
        self._pages = pages
        self._cursors = cursors

    async def page(self, user: User, wanted: Wanted) -> Found:
        """A page of what a search finds. Raises `Invalid` for a cursor that is not of this search.

        A page without jobs (a limit of 0) has no next one, which would be the same.
        """
        search, begin = wanted.search, None
        if wanted.cursor is not None:
            begin = self._cursors.read(user.id, search, wanted.cursor)
        async with prepared(
            self._database,
            self._pages.store,
            Plan(search, user.id, self._database.is_sqlite),
            details=wanted.details,
            begin=begin,
            offset=min(wanted.offset, MAX_JOB_ID),  # as many jobs as there can be
        ) as listing:
            total = await listing.count() if wanted.count else None
            if wanted.limit == 0:
                return Found(b"[]", None, total)
            page = await self._pages.page(listing, min(wanted.limit, MAX_PAGE))
        cursor = page.end and self._cursors.make(user.id, search, page.end)
        return Found(page.body, cursor, total)

    async def relabel(self, user: User, job_id: int, labels: Mapping[str, str]) -> bytes | Chunks:
        """Replace a job's labels; the job with its details. Raises `JobNotFound`."""
        if not 0 < job_id <= MAX_JOB_ID:
            raise JobNotFound
        await self._pages.store.replace_labels(user.id, job_id, labels)
        return await self._pages.job(user.id, job_id, details=True)
