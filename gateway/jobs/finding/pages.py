"""Jobs as JSON, in pieces where they are long: an answer's memory is bounded in bytes, not in rows.

A page of ordinary jobs is one piece, read in one step. Everything beyond comes in pieces, each read
when the client has taken the one before, within a budget of bytes that all clients share. A client
that does not read holds one piece, and no connection to the database.
"""

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson

from common.jobs.answer import Job
from gateway.http.limits import user_caller
from gateway.http.memory import ByteBudget
from gateway.http.streaming import Chunks
from gateway.jobs.columns import LONG, is_long
from gateway.jobs.errors import JobNotFound
from gateway.jobs.finding.listing import Listing
from gateway.jobs.finding.search import Place
from gateway.jobs.store import JobStore

_ROWS_AT_ONCE: Final = 100
_ROWS_PER_PIECE: Final = 25
_LARGEST_ROW: Final = 2 * LONG
"""Bytes that a job takes in a page at most: its texts, and what has a length anyway."""

_COPIES: Final = 3
"""A long job is in memory as its texts, as JSON, and as what is being written."""

_WHOLE: Final = 128 << 10
_SLICE: Final = 64 << 10

TOTAL: Final = 24 << 20
PER_USER: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Page:
    """A page as JSON, and its last job's place if there are more behind it."""

    body: bytes | Chunks
    end: Place | None = None


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of jobs, and single jobs."""

    store: JobStore
    budget: ByteBudget

    async def page(self, listing: Listing, limit: int) -> Page:
        """Up to `limit` jobs of a listing: whole if that is not long."""
        asked = min(limit, _ROWS_AT_ONCE)
        rows = await listing.first(asked + 1)
        is_all = len(rows) <= asked
        if is_all:
            end = None
        elif asked == limit:
            rows.pop()
            end = listing.search.place(rows[-1])
        else:
            end = await listing.end(limit)
        if (is_all or asked == limit) and not any(map(is_long, rows)):
            whole = orjson.dumps(await listing.shown(rows))
            if len(whole) <= _WHOLE:
                return Page(whole, end)
        return Page(self._stream(listing.apart(), rows[:_ROWS_PER_PIECE], limit, end), end)

    async def job(self, user_id: str, job_id: int, *, details: bool = False) -> bytes | Chunks:
        """One job. Raises `JobNotFound`."""
        job = await self.store.find((job_id, user_id))
        if details:
            job = await self.store.with_details(job)
        return self._long(user_id, job, b"") if is_long(job) else orjson.dumps(job)

    async def _stream(
        self, listing: Listing, rows: list[Job], limit: int, end: Place | None
    ) -> Chunks:
        """The page that begins with `rows`: up to its end, or else up to the limit."""
        user_id, search = listing.plan.user_id, listing.search
        before, left = b"[", limit
        while rows:
            for piece in _pieces(await listing.shown(rows)):
                if isinstance(piece, dict):
                    pieces = self._long(user_id, piece, before)
                else:
                    pieces = self._short(user_id, before + piece)
                async with aclosing(pieces):
                    async for slice_ in pieces:
                        before = b","
                        yield slice_
            left -= len(rows)
            last = search.place(rows[-1])
            rows = []  # not while the client is waited for
            if end is not None and last != end:
                # the next page begins there, whatever has come or gone meanwhile
                rows = await listing.after(last, _ROWS_PER_PIECE)
                rows = [row for row in rows if not search.is_behind(search.place(row), end)]
            elif end is None and left:
                rows = await listing.after(last, min(left, _ROWS_PER_PIECE))
        yield b"[]" if before == b"[" else b"]"

    async def _short(self, user_id: str, piece: bytes) -> Chunks:
        async with self.budget.hold(user_caller(user_id), 2 * len(piece)):
            for slice_ in _slices(piece):
                yield slice_

    async def _long(self, user_id: str, job: Job, before: bytes) -> Chunks:
        """A job with its texts, behind `before`; in a page, nothing if it is gone by now."""
        size = _COPIES * (await self.store.size_of(job["id"]) + _LARGEST_ROW)
        async with self.budget.hold(user_caller(user_id), size) as held:
            try:
                # no name for the texts themselves: a slow client would hold them as well
                piece = before + orjson.dumps(
                    {**job, **await self.store.find_long(user_id, job["id"])}
                )
            except JobNotFound:
                if not before:
                    raise
                return
            held.shrink(len(piece) + _SLICE)
            for slice_ in _slices(piece):
                yield slice_


def _pieces(rows: list[Job]) -> Iterator[bytes | Job]:
    """Neighbouring short jobs together, as JSON without brackets; each long one by itself."""
    short: list[Job] = []
    for job in rows:
        if not is_long(job):
            short.append(job)
            continue
        if short:
            yield orjson.dumps(short)[1:-1]
            short = []
        yield job
    if short:
        yield orjson.dumps(short)[1:-1]


def _slices(piece: bytes) -> Iterator[bytes]:
    """Little at a time: what is written waits in the connection's buffer once more.

    Copies, since a view in that buffer would hold the whole piece.
    """
    for start in range(0, len(piece), _SLICE):
        yield piece[start : start + _SLICE]
