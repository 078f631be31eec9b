"""A user's jobs in some order, read in parts."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection

from common.database.engine import Database
from common.database.tables import MAX_JOB_ID
from common.jobs.answer import Job, as_jobs
from gateway.jobs.details import with_details
from gateway.jobs.finding import statements
from gateway.jobs.finding.facets import matching_facets
from gateway.jobs.finding.names import is_exact
from gateway.jobs.finding.search import Place, Search
from gateway.jobs.finding.statements import Plan
from gateway.jobs.store import JobStore


@dataclass(frozen=True, slots=True)
class Listing:
    """The jobs of one search that are behind a place (None: all of them).

    Rows are as in `JobStore.page`; `shown` adds details, if these are wanted. They are read by
    `connection`, or else each time by another one.
    """

    database: Database
    store: JobStore
    plan: Plan
    details: bool = False
    begin: Place | None = None
    offset: int = 0
    connection: AsyncConnection | None = None

    def apart(self) -> Self:
        """The same without a connection of its own, for clients that take their time."""
        return replace(self, connection=None)

    @property
    def search(self) -> Search:
        return self.plan.search

    @property
    def is_empty(self) -> bool:
        """Whether nothing can match."""
        some = (self.plan.facets, self.plan.named)
        if any(found is not None and not found for found in some):
            return True
        batch = self.search.batch_id
        return batch is not None and not 0 < batch <= MAX_JOB_ID

    async def first(self, limit: int) -> list[Job]:
        """The first jobs, up to `limit`."""
        if self.is_empty:
            return []
        if self.begin is not None:
            return await self.after(self.begin, limit)
        if not self.search.is_plain:
            return await self._read(None, self.offset, limit)
        return await self.store.page(self.plan.user_id, offset=self.offset, limit=limit)

    async def after(self, place: Place, limit: int) -> list[Job]:
        """Up to `limit` jobs behind a place, whatever has come or gone before it."""
        if not self.search.is_plain:
            return await self._read(place, 0, limit)
        date = place.key if isinstance(place.key, datetime) else None
        return await self.store.page_after(self.plan.user_id, date, place.id, limit)

    async def end(self, limit: int) -> Place | None:
        """The place of the last of the first `limit` jobs; None if there are no more than those."""
        statement = statements.edge(self.plan, after=self.begin, offset=self.offset, limit=limit)
        async with self._reading() as connection:
            found = (await connection.execute(statement)).all()
        return Place(*found[0]) if len(found) > 1 else None

    async def count(self) -> int:
        """How many jobs match, before and behind the place."""
        if self.is_empty:
            return 0
        async with self._reading() as connection:
            return int((await connection.execute(statements.count(self.plan))).scalar_one())

    async def _read(self, after: Place | None, offset: int, limit: int) -> list[Job]:
        statement = statements.page(self.plan, after=after, offset=offset, limit=limit)
        async with self._reading() as connection:
            rows = (await connection.execute(statement)).all()
        return as_jobs(rows[:limit])

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        database = self.database
        if self.connection is not None:
            return nullcontext(self.connection)
        return database.reading_anew() if self.search.has_filters else database.reading()

    async def shown(self, found: list[Job]) -> list[Job]:
        """The jobs as they are answered, without those that are gone by now."""
        if not self.details or not found:
            return found
        async with self._reading() as connection:
            return await with_details(connection, found)


@asynccontextmanager
async def prepared(
    database: Database,
    store: JobStore,
    plan: Plan,
    *,
    details: bool = False,
    begin: Place | None = None,
    offset: int = 0,
) -> AsyncIterator[Listing]:
    """The listing of a search, with what its statements have to know beforehand.

    With filters, one transaction serves both until the context ends.
    """
    listing = Listing(database, store, plan, details, begin, offset)
    if not plan.search.has_filters:
        yield listing
        return
    async with database.reading_anew() as connection:
        yield replace(listing, plan=await _informed(connection, plan), connection=connection)


async def _informed(connection: AsyncConnection, plan: Plan) -> Plan:
    search = plan.search

    async def is_short(beyond: Select[Any]) -> bool:
        return (await connection.execute(beyond)).first() is None

    if search.by_facet:
        plan = replace(plan, facets=await matching_facets(connection, plan.user_id, search))
    if search.name is not None and not is_exact(search.name):
        named = (await connection.scalars(statements.few_named(plan))).all()
        if len(named) <= statements.FEW:
            plan = replace(plan, named=named)
    if search.finished != (None, None):
        plan = replace(plan, few_finished=await is_short(statements.beyond_few_finished(plan)))
    for label in search.labels if len(search.labels) > 1 else ():
        if await is_short(statements.beyond_few_labelled(plan, label)):
            return replace(plan, rare_label=label)
    return plan
